"""The simplify stage on toy graphs: what it folds, what it must not change, and that failures are errors."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import onnxsim
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from sam3_build.errors import BuildError
from sam3_build.graph import files
from sam3_build.graph.names import name_from_scopes
from sam3_build.spec import TensorSpec
from sam3_build.stages import export, simplify


def toy(tmp_path, **save):
    """Three projections of one tensor, a constant that is computed, and two that do nothing."""
    rng = np.random.default_rng(0)
    constants = {f"layer.{p}_proj.weight": rng.standard_normal((4, 4)).astype(np.float32) for p in "qkv"}
    constants |= {f"layer.{p}_proj.bias": rng.standard_normal(4).astype(np.float32) for p in "qkv"}
    nodes = []
    for p in "qkv":
        nodes.append(("MatMul", ["x", f"layer.{p}_proj.weight"], [f"{p}m"], f"layer.{p}_proj/MatMul_0"))
        nodes.append(("Add", [f"{p}m", f"layer.{p}_proj.bias"], [p], f"layer.{p}_proj/Add_0"))
    nodes += [
        ("Mul", ["two", "three"], ["six"], "layer/Mul_0"),
        ("Mul", ["q", "six"], ["q6"], "layer/Mul_1"),
        ("Identity", ["q6"], ["same"], "layer/Identity_0"),
        ("Add", ["same", "k"], ["qk"], "layer/Add_0"),
        ("Sub", ["qk", "v"], ["y"], "layer/Sub_0"),
    ]
    constants |= {"two": np.float32(2), "three": np.float32(3)}
    dims = ("batch", "length", 4)
    body = helper.make_graph(
        [helper.make_node(op, i, o, name=name) for op, i, o, name in nodes],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    folder = tmp_path / "in"
    folder.mkdir()
    onnx.save(model, folder / "toy.onnx", **save)
    (tmp_path / "out").mkdir()
    return folder / "toy.onnx", tmp_path / "out"


def result(source, out):
    facts = simplify.run({"component": "toy"}, {"onnx": source.parent}, out)
    return onnx.load(out / "toy.onnx"), facts


def test_constants_are_folded_and_projections_keep_their_names(tmp_path):
    source, out = toy(tmp_path)
    model, facts = result(source, out)
    assert facts == {"nodes_before": 11, "nodes": 9}
    names = {node.name for node in model.graph.node}
    assert names == {f"layer.{p}_proj/{op}_0" for p in "qkv" for op in ("MatMul", "Add")} | {
        "layer/Mul_1",
        "layer/Add_0",
        "layer/Sub_0",
    }
    assert [f.name for f in out.iterdir()] == ["toy.onnx"]
    x = np.random.default_rng(1).standard_normal((2, 5, 4)).astype(np.float32)
    one, other = (onnxruntime.InferenceSession(f).run(None, {"x": x})[0] for f in (source, out / "toy.onnx"))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_inputs_and_outputs_keep_names_types_and_symbolic_dims(tmp_path):
    source, out = toy(tmp_path)
    model, _ = result(source, out)
    before = onnx.load(source).graph
    assert (list(model.graph.input), list(model.graph.output)) == (list(before.input), list(before.output))


def test_weights_beside_the_file_stay_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "INLINE_LIMIT", 0)
    monkeypatch.setattr(files, "SMALL_TENSOR", 16)
    source, out = toy(tmp_path, save_as_external_data=True, location="toy.onnx.data", size_threshold=0)
    result(source, out)
    assert sorted(f.name for f in out.iterdir()) == ["toy.onnx", "toy.onnx.data"]


def test_a_file_that_onnxsim_cannot_read_is_an_error(tmp_path):
    source, out = toy(tmp_path)
    source.write_bytes(b"no ONNX")
    with pytest.raises(BuildError, match=r"^toy: onnxsim failed: "):
        simplify.run({"component": "toy"}, {"onnx": source}, out)


def rewriting(change):
    """A stand-in for onnxsim that makes a change that it must not make."""

    def fake(model, *, skipped_optimizers, certify, output_path):
        proto = onnx.load(model)
        change(proto)
        onnx.save(proto, output_path)

    return fake


def fix_batch(proto):
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def rename_batch(proto):
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "unk__0"


def rename_output(proto):
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "z"


def raise_opset(proto):
    proto.opset_import[0].version = 21


def break_graph(proto):
    proto.graph.node[0].op_type = "NoSuchOperator"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fix_batch, r"onnxsim changed 'x' of the inputs from FLOAT \[batch,length,4\] to FLOAT \[1,length,4\]"),
        (rename_output, r"onnxsim changed the outputs from \['y'\] to \['z'\]"),
        (raise_opset, r"onnxsim changed the opset from \{'': 20\} to \{'': 21\}"),
        (break_graph, r"^toy after onnxsim: the graph is not valid ONNX: .*NoSuchOperator"),
    ],
)
def test_a_change_of_the_contract_is_an_error(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(onnxsim, "simplify", rewriting(change))
    with pytest.raises(BuildError, match=message):
        result(*toy(tmp_path))


def test_a_symbolic_dim_that_onnxsim_renames_gets_its_name_back(tmp_path, monkeypatch):
    monkeypatch.setattr(onnxsim, "simplify", rewriting(rename_batch))
    model, _ = result(*toy(tmp_path))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def replace_last_node(proto):
    last = proto.graph.node.pop()
    proto.graph.node.append(helper.make_node("Neg", [last.input[1]], ["tool_1"], name="Neg_17"))
    proto.graph.node.append(helper.make_node("Add", [last.input[0], "tool_1"], list(last.output)))


def test_a_node_that_onnxsim_makes_is_named_after_a_neighbour(tmp_path, monkeypatch):
    monkeypatch.setattr(onnxsim, "simplify", rewriting(replace_last_node))
    model, _ = result(*toy(tmp_path))
    assert [(n.name, n.output[0]) for n in model.graph.node][-2:] == [
        ("layer.v_proj/Neg_0", "layer.v_proj/Neg_0:0"),
        ("layer/Add_1", "y"),
    ]


def test_no_model_written_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(onnxsim, "simplify", lambda *given, **options: None)
    with pytest.raises(BuildError, match="wrote no model"):
        result(*toy(tmp_path))


def attention(tmp_path):
    """Attention without a mask, its projections biased, as the exporter writes it."""
    torch.manual_seed(0)

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                setattr(self, name, torch.nn.Linear(64, 64))

        def forward(self, x):
            batch = x.shape[0]
            heads = [p(x).view(batch, 5, 4, 16).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)]
            q, k, v = heads
            scores = (q @ k.transpose(-1, -2) * 0.25).softmax(-1)
            return (self.out_proj((scores @ v).transpose(1, 2).reshape(batch, 5, 64)),)

    tensors = [TensorSpec(name, "float32", ("batch", 5, 64)) for name in ("x", "y")]
    interface = export.Interface(tensors[:1], tensors[1:], ["batch"], {"batch": 2})
    module = Attention().eval()
    model = export.to_onnx(module, interface, 20)
    export.optimize(model)
    name_from_scopes(model, "toy", frozenset(module.state_dict()))
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    files.save(model, tmp_path / "in" / "toy.onnx")
    return tmp_path / "in" / "toy.onnx", tmp_path / "out"


@pytest.mark.ci
def test_attention_stays_the_operators_of_onnx_and_its_projections_keep_their_names(tmp_path):
    """onnxsim has a fusion into an operator of one runtime, which no other one knows."""
    source, out = attention(tmp_path)
    model, _ = result(source, out)
    assert {node.domain for node in model.graph.node} == {""}
    names = {node.name for node in model.graph.node}
    assert {f"{p}_proj/MatMul_0" for p in ("q", "k", "v", "out")} <= names
    x = np.random.default_rng(1).standard_normal((3, 5, 64)).astype(np.float32)
    one, other = (onnxruntime.InferenceSession(f).run(None, {"x": x})[0] for f in (source, out / "toy.onnx"))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_onnxsim_is_imported_without_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with simplify._without_torch(), pytest.raises(ModuleNotFoundError):
        import_module("torch")
    assert "torch" not in sys.modules, "what is imported later finds it"
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    with simplify._without_torch():
        assert import_module("torch") is sys.modules["torch"]
