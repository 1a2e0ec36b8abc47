"""Takes a component's ONNX and names of patches, returns the rewritten graph. Checks what patches promise."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.graph import files
from sam3_build.graph.names import complete_names, weights
from sam3_build.params import PatchParams
from sam3_build.plugins import ONNX, Memory, Patch, Stage
from sam3_build.spec import Json

logger = logging.getLogger(__name__)


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Apply `patches` to `inputs["onnx"]`, write `<component>.onnx`, return the number of rewrites of each.

    document: PatchParams. Without patches the graph is copied.
    """
    params = PatchParams.of(document)
    component, names = params.component, params.patches
    source = files.onnx_file(inputs["onnx"])
    model = files.load(source)
    nodes, own = len(model.graph), weights(model)
    rewrites: dict[str, int] = {}
    if names:
        import onnx_graphsurgeon as gs
        import onnx_ir as ir

        files.infer_types(model)
        surgeon = gs.import_onnx(ir.to_proto(model))
        # Data beside the file is read where a patch looks at values, from the current folder; all else stays there.
        with chdir(source.parent):
            for name in names:
                rewrites[name] = apply(registry.patch(name), surgeon, component)
                logger.info("%s: %s made %d rewrites", component, name, rewrites[name])
            proto = gs.export_onnx(surgeon)
        del surgeon
        for tensor in proto.graph.initializer:
            if not tensor.external_data:  # it was read, and GraphSurgeon still says that it lies elsewhere
                tensor.ClearField("data_location")
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, source.parent)
        complete_names(model, own)
    target = out / f"{component}.onnx"
    files.save(model, target)
    facts: dict[str, Json] = {"rewrites": rewrites, "nodes_before": nodes, "nodes": len(model.graph)}
    del model
    files.check(target, f"{component} after {', '.join(rewrites) or 'no patch'}")
    return facts


def apply(patch: Patch, surgeon: object, component: str) -> int:
    """Apply one patch to a `onnx_graphsurgeon.Graph`, in place; return the number of rewrites, which is never zero."""
    if missing := patch.requires(surgeon):
        raise BuildError(f"{component}: patch {patch.name!r} cannot be applied: {missing}")
    interface = _interface(surgeon)
    rewrites = patch.apply(surgeon)
    if rewrites == 0:
        raise BuildError(
            f"{component}: patch {patch.name!r} found nothing to rewrite ({patch.summary}); "
            f"remove it from the patches of {component} in the manifest"
        )
    if wrong := patch.ensures(surgeon):
        raise BuildError(f"{component}: patch {patch.name!r} made {rewrites} rewrites, but {wrong}")
    if _interface(surgeon) != interface:
        raise BuildError(f"{component}: patch {patch.name!r} changed the inputs or outputs of the graph")
    return rewrites


def _interface(surgeon: object) -> list[tuple[str, str, str]]:
    import onnx_graphsurgeon as gs

    assert isinstance(surgeon, gs.Graph)
    return [(t.name, str(t.dtype), str(t.shape)) for t in (*surgeon.inputs, *surgeon.outputs)]


STAGE = Stage(
    name="patch",
    summary="Rewrite graphs with the manifest's patches",
    tools=("ml_dtypes", "numpy", "onnx", "onnx-graphsurgeon", "onnx-ir", "onnxruntime"),
    run=run,
    memory=Memory(base=400_000_000, weights=1.3),
    imports=ONNX,
)
