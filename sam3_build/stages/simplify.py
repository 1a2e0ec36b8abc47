"""Takes a component's ONNX, returns it without no-ops and constant arithmetic. Runs onnxsim and checks its work."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.graph import files, names
from sam3_build.params import SimplifyParams
from sam3_build.plugins import ONNX, Memory, Stage
from sam3_build.spec import Json

if TYPE_CHECKING:
    import onnx_ir as ir

logger = logging.getLogger(__name__)

# What these passes build has more nodes, other names or other operators than what they replace:
# fuse_qkv joins q, k and v projections, so that no pattern can name one of them any more; the batched Gemm fusion turns
# each MatMul and Add of a projection into Reshape, Gemm, Reshape (with shape arithmetic, where a length is dynamic);
# fuse_attention builds an operator of ONNX Runtime's own of attention without a mask whose projections have biases.
SKIPPED = ["fuse_qkv", "fuse_matmul_add_bias_into_gemm_batched", "fuse_attention"]


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Simplify `inputs["onnx"]` into `<component>.onnx` and return node and weight counts, before and after.

    document: SimplifyParams
    """
    component = SimplifyParams.of(document).component
    source = files.onnx_file(inputs["onnx"])
    target = out / f"{component}.onnx"
    with TemporaryDirectory(dir=out) as scratch:
        simplified = Path(scratch) / target.name
        _simplify(source, simplified, component)
        before, model = files.load(source), files.load(simplified)
        _restore_interface(model, before, component)
        model.graph.name = before.graph.name
        names.complete_names(model, names.weights(before))
        files.save(model, target)
        facts = {"nodes_before": len(before.graph), "nodes": len(model.graph)}
        del before, model
    files.check(target, f"{component} after onnxsim")
    logger.info("%s: %d nodes, %d after simplification", component, facts["nodes_before"], facts["nodes"])
    return facts


def _simplify(source: Path, target: Path, component: str) -> None:
    with _without_torch():
        import onnxsim

    try:
        # By path, so that models above protobuf's 2 GiB work. The returned flag says nothing: without random inputs to
        # compare on it is always True.
        onnxsim.simplify(str(source), skipped_optimizers=SKIPPED, certify=False, output_path=str(target))
    except Exception as error:  # whatever C++ throws; never go on with the graph as it was
        raise BuildError(f"{component}: onnxsim failed: {type(error).__name__}: {error}") from error
    if not target.is_file():
        raise BuildError(f"{component}: onnxsim ended without an error, but wrote no model")


@contextmanager
def _without_torch() -> Iterator[None]:
    """Let imports inside find no torch, unless it is imported already.

    onnxsim imports it for an optional package beside it, and that takes longer than to simplify a small network.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own mark of what cannot be imported
    try:
        yield
    finally:
        del sys.modules["torch"]


def _restore_interface(model: ir.Model, before: ir.Model, component: str) -> None:
    """Name symbolic dims as before: onnxsim may rename them. BuildError when anything else is not as it was."""
    if dict(model.graph.opset_imports) != dict(before.graph.opset_imports):
        raise BuildError(
            f"{component}: onnxsim changed the opset from {before.graph.opset_imports} to {model.graph.opset_imports}"
        )
    for kind, old, new in (
        ("inputs", before.graph.inputs, model.graph.inputs),
        ("outputs", before.graph.outputs, model.graph.outputs),
    ):
        if [v.name for v in old] != [v.name for v in new]:
            raise BuildError(
                f"{component}: onnxsim changed the {kind} from {[v.name for v in old]} to {[v.name for v in new]}"
            )
        for declared, value in zip(old, new, strict=True):
            if declared.dtype != value.dtype or _sizes(declared) != _sizes(value):
                raise BuildError(
                    f"{component}: onnxsim changed {value.name!r} of the {kind} from {declared.dtype} {declared.shape} "
                    f"to {value.dtype} {value.shape}"
                )
            value.shape = declared.shape


def _sizes(value: ir.Value) -> list[int | None] | None:
    """Return the dims, None for a symbolic one."""
    return None if value.shape is None else [dim if isinstance(dim, int) else None for dim in value.shape]


STAGE = Stage(
    name="simplify",
    summary="Simplify graphs with onnxsim",
    tools=("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxsim"),
    run=run,
    memory=Memory(base=600_000_000, weights=2.3),
    imports=ONNX,
)
