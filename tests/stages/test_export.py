"""The four components of the miniature as ONNX: equal to PyTorch on other inputs, named, deterministic, checked."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch

from sam3_build import graph, registry
from sam3_build.errors import BuildError
from sam3_build.families.sam3_image import forward, weights
from sam3_build.naming import module_path
from sam3_build.stages import export

ROOT = Path(__file__).parents[2]
FAMILY = registry.family("sam3_image")
COMPONENTS = [c.name for c in FAMILY.components]
PARAMS = {"family": "sam3_image", "source": {"random": {"seed": 0}}, "opset": 20}
CONFIG = ROOT / "manifests" / "sam3_mini.json"


@pytest.fixture(scope="module")
def config():
    return json.loads(CONFIG.read_text())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Component -> its ONNX file."""
    files = {}
    for component in COMPONENTS:
        out = tmp_path_factory.mktemp(component)
        export.run({**PARAMS, "component": component}, {"config": CONFIG}, out)
        files[component] = out / f"{component}.onnx"
    return files


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
    module = forward.assemble(component, config, weights.load(component, PARAMS["source"], config, None))
    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(array) for name, array in feed.items()})
    session = onnxruntime.InferenceSession(exported[component], providers=["CPUExecutionProvider"])
    for found, reference in zip(session.run(None, feed), expected, strict=True):
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
    keys = set(forward.skeleton(component, config).state_dict())
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


@pytest.mark.parametrize("component", ["text_encoder", "geometry_encoder"])
def test_another_process_exports_the_same_bytes(component, exported, tmp_path):
    code = (
        "import json, sys; from pathlib import Path; from sam3_build.stages import export;"
        "export.run(json.loads(sys.argv[1]), {'config': Path(sys.argv[2])}, Path(sys.argv[3]))"
    )
    params = json.dumps({**PARAMS, "component": component})
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, params, str(CONFIG), str(tmp_path)], check=True, env=environment)
    digests = [
        hashlib.sha256(f.read_bytes()).hexdigest() for f in (tmp_path / f"{component}.onnx", exported[component])
    ]
    assert digests[0] == digests[1]


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
    model = graph.load(exported["geometry_encoder"])
    change(model.graph)
    with pytest.raises(BuildError, match=problem):
        export.hold_against_spec(model, FAMILY, "geometry_encoder", config)


def test_another_opset_is_what_the_file_says(tmp_path):
    export.run({**PARAMS, "component": "text_encoder", "opset": 18}, {"config": CONFIG}, tmp_path)
    assert onnx.load(tmp_path / "text_encoder.onnx").opset_import[0].version == 18


@pytest.mark.slow
@pytest.mark.parametrize("component", COMPONENTS)
def test_a_full_size_export_stays_within_its_memory(component, tmp_path):
    """Peak resident memory is at most 2.2 times the component's weights + 1.5 GB."""
    from transformers import Sam3Config

    (tmp_path / "config.json").write_text(json.dumps(Sam3Config().to_dict()))
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import json, resource, sys; from pathlib import Path; from sam3_build.stages import export;"
        "export.run(json.loads(sys.argv[1]), {'config': Path(sys.argv[2])}, Path(sys.argv[3]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    arguments = [json.dumps({**PARAMS, "component": component}), str(tmp_path / "config.json"), str(out)]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, env={"PYTHONPATH": str(ROOT)}
    )
    written = sum(f.stat().st_size for f in out.iterdir())
    assert int(run.stdout.split()[-1]) <= 2.2 * written + 1.5e9
