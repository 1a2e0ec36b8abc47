"""FLOAT16 behind an FP32 prefix: the first blocks of a component, and all that feeds them, stay FP32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sam3_build.errors import BuildError
from sam3_build.plugins import SIXTEEN_BIT, Precision
from sam3_build.precisions import _roles
from sam3_build.spec import Json

if TYPE_CHECKING:
    import onnx_ir as ir

# What a public report kept of a vision encoder: 20 of 32 blocks.
SHARE = 20 / 32


@dataclass(frozen=True)
class PrefixOptions:
    """What a manifest says of a component's prefix: how many blocks stay FP32; five eighths when not given."""

    blocks: int | None = None

    def __post_init__(self) -> None:
        """Refuse a prefix without blocks: that is another precision."""
        if self.blocks is not None and self.blocks < 1:
            raise BuildError(f"blocks is {self.blocks}, but a prefix has at least 1; for none, choose fp16")


def _keep(model: object, options: Mapping[str, Json]) -> Mapping[str, str]:
    count = options["blocks"]
    assert count is None or isinstance(count, int)
    return dict.fromkeys(_roles.first_blocks(cast("ir.Model", model), count, SHARE), "prefix")


PRECISION = Precision(
    name="fp16_prefix",
    summary="FLOAT16 inside, but for the first blocks (option `blocks`) and what feeds them, in FP32",
    onnx_type="FLOAT16",
    gates=SIXTEEN_BIT,
    keep=_keep,
    options=PrefixOptions,
    keeps_gemms=True,
)
