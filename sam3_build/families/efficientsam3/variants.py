"""The trunks and text encoders of EfficientSAM3 by name, with their sizes, and which of them a file's tensors are.

Sizes are those of the authors' code, checked against it in tests/families/efficientsam3. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from sam3_build.documents import value_of
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.spec import Json


@dataclass(frozen=True)
class RepViT:
    """widths and depths (blocks) of four stages."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True)
class TinyViT:
    """Of four stages: widths, depths, heads of attention, and the side of its windows in cells; the first has none."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...]


@dataclass(frozen=True)
class EfficientViT:
    """widths and depths of the stem and four stages; channels of a head of attention."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    head_width: int


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a text encoder.

    max_position_embeddings: how many tokens it reads, always; shorter texts are padded
    use_repmixer_blocks: whether convolutions over tokens stand before and after the transformer
    is_causal: whether a token sees only those before it
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    vocab_size: int = 49408
    use_repmixer_blocks: bool = False
    is_causal: bool = False


Sizes = TypeVar("Sizes")
Trunk: TypeAlias = RepViT | TinyViT | EfficientViT
TRUNK_TYPES: Mapping[str, type[Trunk]] = {"repvit": RepViT, "tiny_vit": TinyViT, "efficientvit": EfficientViT}

_TINY_WINDOWS, _TINY_DEPTHS = (7, 7, 14, 7), (2, 2, 6, 2)
TRUNKS: Mapping[str, Trunk] = {
    "repvit_m0_9": RepViT((48, 96, 192, 384), (3, 4, 16, 3)),
    "repvit_m1_1": RepViT((64, 128, 256, 512), (3, 4, 14, 3)),
    "repvit_m2_3": RepViT((80, 160, 320, 640), (7, 8, 36, 3)),
    "tiny_vit_5m": TinyViT((64, 128, 160, 320), _TINY_DEPTHS, (2, 4, 5, 10), _TINY_WINDOWS),
    "tiny_vit_11m": TinyViT((64, 128, 256, 448), _TINY_DEPTHS, (2, 4, 8, 14), _TINY_WINDOWS),
    "tiny_vit_21m": TinyViT((96, 192, 384, 576), _TINY_DEPTHS, (3, 6, 12, 18), _TINY_WINDOWS),
    "efficientvit_b0": EfficientViT((8, 16, 32, 64, 128), (1, 2, 2, 2, 2), 16),
    "efficientvit_b1": EfficientViT((16, 32, 64, 128, 256), (1, 2, 3, 3, 4), 16),
    "efficientvit_b2": EfficientViT((24, 48, 96, 192, 384), (1, 3, 4, 4, 6), 32),
}

# How many tokens the authors' text encoders read; a checkpoint's table of positions has as many rows.
CONTEXTS = (16, 32, 77)
TEXT_ENCODERS: Mapping[str, TextConfig] = {
    "MobileCLIP-S0": TextConfig(512, 4, 8, 16, use_repmixer_blocks=True),
    "MobileCLIP-S1": TextConfig(512, 12, 8, 16),
    "MobileCLIP2-L": TextConfig(768, 12, 12, 16),
    "MobileCLIP-B": TextConfig(512, 12, 8, 77, is_causal=True),
}


def trunk_of(given: Json) -> tuple[str, Trunk]:
    """Return type and sizes of a trunk: by its name, or `{"type": "repvit", "widths": [...], "depths": [...]}`."""
    if isinstance(given, Mapping):
        kind = str(given.get("type"))
        if kind not in TRUNK_TYPES:
            raise BuildError(f"model config: no trunk of type {kind!r}{did_you_mean(kind, TRUNK_TYPES)}")
        sizes = {key: value for key, value in given.items() if key != "type"}
        return kind, value_of(TRUNK_TYPES[kind], sizes)
    trunk = _named(TRUNKS, given, "trunk")
    return next(kind for kind, of in TRUNK_TYPES.items() if isinstance(trunk, of)), trunk


def text_config_of(given: Json) -> TextConfig:
    """Return the sizes of a text encoder: by its name, by `{"name": ..., "max_position_embeddings": 32}`, or all."""
    if not isinstance(given, Mapping):
        return _named(TEXT_ENCODERS, given, "text_config")
    own = {key: value for key, value in given.items() if key != "name"}
    if "name" not in given:
        return value_of(TextConfig, own)
    named = _named(TEXT_ENCODERS, given["name"], "text_config")
    return value_of(TextConfig, {**vars(named), **own})


def official_config(shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Json]:
    """Return the config of the authors' file with tensors of these shapes, by our names.

    MobileCLIP-B has the shapes of MobileCLIP-S1 and a causal mask beside: a file of it needs a config that says so.
    BuildError when they are those of no published model.
    """
    table = shapes.get("text_encoder.positional_embedding.pos_embed.pos_embed")
    layers = _numbers(shapes, r"text_encoder\.transformer\.(\d+)\.pre_norm_mha\.")
    encoders = [
        name
        for name, sizes in TEXT_ENCODERS.items()
        if table and (sizes.hidden_size, sizes.num_hidden_layers) == (table[-1], len(layers))
    ]
    trunks = [name for name, sizes in TRUNKS.items() if _is_trunk(sizes, shapes)]
    if not encoders or not trunks or table is None:
        what = "trunk" if not trunks else "text encoder"
        raise BuildError(
            f"by the shapes of its tensors this is none of the published {what}s "
            f"({', '.join(TRUNKS if what == 'trunk' else TEXT_ENCODERS)}); name a `config:` with its sizes"
        )
    text: Json = {"name": encoders[0], "max_position_embeddings": table[2]}
    return {"model_type": "efficientsam3", "trunk": trunks[0], "text_config": text}


def _is_trunk(trunk: Trunk, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a file's tensors are of this trunk: its type by a name, its size by the head's input and its blocks."""
    backbone = "vision_encoder.backbone."
    signs = {
        RepViT: (r"features\.(\d+)\.", 1 + sum(trunk.depths)),
        TinyViT: (r"layers\.(\d+)\.", len(trunk.depths)),
        EfficientViT: (r"stages\.(\d+)\.", len(trunk.depths) - 1),
    }
    pattern, count = signs[type(trunk)]
    head = shapes.get("vision_encoder.head.0.weight", (0, 0))
    return head[1] == trunk.widths[-1] and len(_numbers(shapes, re.escape(backbone) + pattern)) == count


def _numbers(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> set[str]:
    return {found[1] for name in shapes if (found := re.match(pattern, name))}


def _named(known: Mapping[str, Sizes], name: Json, key: str) -> Sizes:
    if not isinstance(name, str) or name not in known:
        hint = did_you_mean(str(name), known) or f"; known: {', '.join(known)}"
        raise BuildError(f"model config: {key} is {name!r}{hint}")
    return known[name]
