"""The four components of the miniature as ONNX: equal to PyTorch on other inputs, named, deterministic, checked."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import replace
from math import prod

import miniature
import numpy as np
import onnx
import onnx_ir
import pytest
import sam3_weights as weights
import torch
from miniature import SOURCE, run_onnx

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.families.sam3_image.modules import DYNAMIC_SIZES
from sam3_build.graph import files
from sam3_build.graph.names import module_path
from sam3_build.params import ExportParams
from sam3_build.stages import checkpoint, export

FAMILY = registry.family("sam3_image")
COMPONENTS = [c.name for c in FAMILY.components]


@pytest.fixture(scope="module")
def config():
    return json.loads((miniature.folder("checkpoint") / "config.json").read_text())


@pytest.fixture(scope="module")
def exported():
    """Component -> the ONNX file that another process exported."""
    return {component: miniature.onnx(f"export:{component}") for component in COMPONENTS}


def stage(component):
    """The parameters and inputs of a component's export."""
    return miniature.params(f"export:{component}"), miniature.inputs(f"export:{component}")


def export_elsewhere(out, params, inputs, **environment):
    """Export in a process of its own and return its peak of resident memory in bytes."""
    code = (
        "import json, resource, sys; from pathlib import Path; from sam3_build.stages import checkpoint, export;"
        "params, inputs, out = json.load(sys.stdin);"
        "export.run(params, {role: Path(path) for role, path in inputs.items()}, Path(out));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    request = json.dumps([params, {role: str(path) for role, path in inputs.items()}, str(out)])
    environment = {"PYTHONPATH": str(miniature.ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code], input=request, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def inputs(component, config, batch, num_boxes, prompt_len):
    """Random inputs with what matters in them: labels of all kinds, ragged masks, boxes that leave the picture."""
    random = np.random.default_rng(batch * 1000 + num_boxes * 100 + prompt_len)
    dims = {**FAMILY.static_dims(config), "batch": batch, "num_boxes": num_boxes, "prompt_len": prompt_len}
    made = {}
    for tensor in FAMILY.component(component).inputs:
        shape = [dims.get(d, d) for d in tensor.dims]
        made[tensor.name] = random.standard_normal(shape).astype(tensor.dtype)
    valid = {"prompt_mask": prompt_len, "attention_mask": dims["text_len"]}
    for name, length in valid.items():
        if name in made:
            counts = random.integers(1, length + 1, batch)
            made[name] = (np.arange(length) < counts[:, None]).astype(made[name].dtype)
    if "input_ids" in made:
        made["input_ids"] = random.integers(0, 256, made["input_ids"].shape)
    if "input_boxes" in made:
        made["input_boxes"] = random.uniform(0, 1.2, made["input_boxes"].shape).astype(np.float32)
        made["input_boxes_labels"] = random.choice([1, 0, -10], made["input_boxes_labels"].shape)
    return made


@pytest.mark.parametrize(("batch", "num_boxes", "prompt_len"), [(1, 1, 1), (2, 3, 37), (3, 5, 60), (4, 20, 34)])
@pytest.mark.parametrize("component", COMPONENTS)
def test_onnx_runtime_equals_pytorch_at_any_size(component, exported, config, batch, num_boxes, prompt_len):
    feed = inputs(component, config, batch, num_boxes, prompt_len)
    params, files = stage(component)
    listed = json.loads(files["tensors"].read_text())["tensors"]
    module = weights.assemble(
        component, config, weights.load(component, params["source"], config, files["weights"], listed)
    )
    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(array) for name, array in feed.items()})
    for found, reference in zip(run_onnx(exported[component], feed).values(), expected, strict=True):
        reference = reference.numpy()
        assert found.shape == reference.shape and found.dtype == reference.dtype
        if found.dtype == bool:
            assert (found == reference).all()
        else:
            assert np.abs(found - reference).max() <= 1e-4 * np.abs(reference).max()


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_file_passes_the_full_checker_and_has_the_contracts_interface(component, exported, config):
    onnx.checker.check_model(str(exported[component]), full_check=True)
    proto = onnx.load(exported[component])
    spec, static = FAMILY.component(component), FAMILY.static_dims(config)
    for tensors, values in ((spec.inputs, proto.graph.input), (spec.outputs, proto.graph.output)):
        assert [v.name for v in values] == [t.name for t in tensors]
        for tensor, value in zip(tensors, values, strict=True):
            dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            assert dims == [static.get(d, d) for d in tensor.dims]


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_name_tells_where_it_comes_from(component, exported, config):
    proto = onnx.load(exported[component])
    keys = set(weights.skeleton(component, config).state_dict())
    nodes = [n.name for n in proto.graph.node]
    assert len(nodes) == len(set(nodes))
    modules = FAMILY.component(component).modules
    assert all((module_path(n) or "").split(".")[0] in modules for n in nodes)
    outputs = {o.name for o in proto.graph.output}
    for node in proto.graph.node:
        for index, tensor in enumerate(node.output):
            assert tensor in outputs or tensor == f"{node.name}:{index}"
    named_after_key = {t.name for t in proto.graph.initializer} & keys
    assert len(named_after_key) >= len(keys) - 2, "the decoder's query and presence tokens are joined into one constant"
    rest = [t.name for t in proto.graph.initializer if t.name not in keys]
    assert all(name.rsplit(":in", 1)[0] in set(nodes) for name in rest)


@pytest.mark.parametrize("component", ["geometry_encoder", "decoder"])
def test_coordinate_arithmetic_can_be_told_by_its_names(component, exported):
    nodes = [n for n in onnx.load(exported[component]).graph.node if ".coordinates." in n.name]
    kept = {n.op_type for n in nodes}
    assert {"Sin", "Cos"} <= kept, "sine encodings"
    assert not kept & {"MatMul", "Gemm", "Conv", "Softmax"}, "what reduced precision is for"
    rest = {n.op_type for n in onnx.load(exported[component]).graph.node if n not in nodes}
    assert not rest & {"Sin", "Cos", "Log", "Ceil", "Sign"}
    assert FAMILY.component(component).fp32_nodes == ("*.coordinates.*",)


@pytest.mark.parametrize(
    "component",
    [pytest.param(c, marks=pytest.mark.ci if c == "geometry_encoder" else pytest.mark.slow) for c in COMPONENTS],
)
def test_another_process_exports_the_same_bytes(component, exported, tmp_path):
    """With another hash seed and another number of threads than the process that filled the store."""
    export_elsewhere(tmp_path, *stage(component), PYTHONHASHSEED="7")
    assert (tmp_path / f"{component}.onnx").read_bytes() == exported[component].read_bytes()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda g: setattr(g.inputs[1], "shape", onnx_ir.Shape([2, "num_boxes"])),
            r"input input_boxes_labels: dims are \[2, 'num_boxes'\], the family says \['batch', 'num_boxes'\]",
        ),
        (
            lambda g: setattr(g.outputs[0], "shape", onnx_ir.Shape(["batch", "num_boxes + 1", 65])),
            r"output geometry_features: dims are \['batch', 'num_boxes\+1', 65\], .* 64\] \(.*hidden_size\)",
        ),
        (
            lambda g: setattr(g.inputs[0], "type", onnx_ir.TensorType(onnx_ir.DataType.FLOAT16)),
            "input input_boxes: type is float16, the family says float32",
        ),
        (
            lambda g: setattr(g.outputs[1], "name", "mask"),
            r"outputs are \['geometry_features', 'mask'\], the family says \['geometry_features', 'geometry_mask'\]",
        ),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused_by_tensor(change, problem, exported, config):
    model = files.load(exported["geometry_encoder"])
    change(model.graph)
    params, _ = stage("geometry_encoder")
    given = ExportParams.of(params)
    sizes = {**FAMILY.static_dims(config), **DYNAMIC_SIZES}
    interface = export.Interface(given.spec.inputs, given.spec.outputs, given.dynamic_dims, sizes)
    with pytest.raises(BuildError, match=problem):
        export.hold_against(interface, model, "geometry_encoder")


@pytest.mark.ci
def test_a_dim_that_the_exporter_fixes_is_an_error_of_the_stage(monkeypatch, tmp_path):
    """A forward that reads the batch size as a number, and torch.export says nothing."""
    params, files = stage("text_encoder")
    monkeypatch.setattr(export, "to_onnx", fix_batch(export.to_onnx))
    with pytest.raises(BuildError, match=r"input input_ids: dims are \[2, 32\], the family says \['batch', 32\]"):
        export.run(params, files, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_collector_of_cycles_is_paused_while_a_network_is_traced(monkeypatch, tmp_path):
    def to_onnx(module, interface, opset):
        raise BuildError(f"collector on: {gc.isenabled()}")

    monkeypatch.setattr(export, "to_onnx", to_onnx)
    with pytest.raises(BuildError, match=r"^collector on: False$"):
        export.run(*stage("geometry_encoder"), tmp_path)
    assert gc.isenabled()


def fix_batch(to_onnx):
    return lambda module, interface, opset: to_onnx(module, replace(interface, dynamic=[]), opset)


@pytest.mark.ci
def test_another_opset_is_what_the_file_says(tmp_path):
    params, files = stage("text_encoder")
    export.run({**params, "opset": 18}, files, tmp_path)
    assert onnx.load(tmp_path / "text_encoder.onnx").opset_import[0].version == 18


MID_SIZE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 8,
    "vocab_size": 49408,
}


@pytest.mark.parametrize(
    ("component", "config", "beside"),
    [
        # 0.6 GB of weights, and half a gigabyte for torch: a third copy of the weights would show.
        pytest.param(
            "text_encoder", {"text_config": MID_SIZE}, 0.8e9, marks=pytest.mark.ci, id="mid-size-text_encoder"
        ),
        *(pytest.param(c, {}, 1.5e9, marks=pytest.mark.slow, id=f"full-size-{c}") for c in COMPONENTS),
    ],
)
def test_an_export_stays_within_its_memory(component, config, beside, tmp_path):
    """Peak resident memory is at most 2.2 times the component's weights, and what is `beside` them."""
    (tmp_path / "model.json").write_text(json.dumps({"model_type": "sam3", **config}))
    params = {**stage(component)[0], "source": SOURCE}
    source = {"family": params["family"], "layout": "v1", "source": params["source"]}
    for name in ("listed", "out"):
        (tmp_path / name).mkdir()
    checkpoint.run(source, {"config": tmp_path / "model.json"}, tmp_path / "listed")
    files = {"config": tmp_path / "listed" / "config.json", "tensors": tmp_path / "listed" / f"{component}.json"}
    peak = export_elsewhere(tmp_path / "out", params, files)
    tensors = json.loads(files["tensors"].read_text())["tensors"]
    weight_bytes = sum(4 * prod(entry["shape"]) for entry in tensors.values())
    sys.stdout.write(f"peak {peak / 1e9:.2f} GB, weights {weight_bytes / 1e9:.2f} GB\n")
    assert peak <= 2.2 * weight_bytes + beside
