"""Names in ONNX graphs: from the exporter's scopes, and after a tool that rewrote the graph."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx_ir import tape

from sam3_build.graph.names import complete_names, module_path, name_from_scopes, weights

SCOPES = "pkg.torch.onnx.name_scopes"
FOLDED = "pkg.onnxscript.optimizer.folded_from"


def weight(name, array, folded_from=None):
    value = onnx_ir.Value(name=name, const_value=onnx_ir.tensor(array, name=name))
    if folded_from:
        value.metadata_props[FOLDED] = str(folded_from)
    return value


def model(weights, build):
    """Build a graph with input `x` and output `y`; `build(tape, x, **weights)` returns y."""
    x = onnx_ir.Value(name="x", shape=onnx_ir.Shape(["batch", 4]), type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))
    made = tape.Tape()
    y = build(made, x, **{w.name.replace(".", "_"): w for w in weights})
    y.name = "y"
    graph = onnx_ir.Graph([x], [y], nodes=made.nodes, initializers=weights, opset_imports={"": 20}, name="main_graph")
    return onnx_ir.Model(graph, ir_version=10)


def scoped(value, *scopes):
    value.producer().metadata_props[SCOPES] = str([*scopes, "traced"])
    return value


def names(made):
    return [node.name for node in made.graph]


def test_nodes_are_numbered_per_module_and_operator():
    def build(t, x):
        for scopes in (("", "a"), ("", "a"), ("", "a", "a.b"), ("", "a")):
            x = scoped(t.op("Relu", [x]), *scopes)
        return x

    made = model([], build)
    name_from_scopes(made, "c", set())
    assert names(made) == ["a/Relu_0", "a/Relu_1", "a.b/Relu_0", "a/Relu_2"]


def test_tensors_are_named_after_their_producer_and_the_interface_stays():
    made = model([], lambda t, x: scoped(t.op("Neg", [scoped(t.op("Relu", [x]), "", "a")]), "", "b"))
    name_from_scopes(made, "c", set())
    first, last = made.graph
    assert first.outputs[0].name == "a/Relu_0:0"
    assert (made.graph.inputs[0].name, last.outputs[0].name) == ("x", "y")


def test_nodes_without_a_module_take_a_neighbours_path():
    def build(t, x):
        x = t.op("Relu", [x])  # only a consumer knows a module
        x = scoped(t.op("Neg", [x]), "", "a.b")
        x = scoped(t.op("Abs", [x]), "_empty_nn_module_stack_from_metadata_hook")
        return t.op("Exp", [x])

    made = model([], build)
    name_from_scopes(made, "c", set())
    assert names(made) == ["a.b/Relu_0", "a.b/Neg_0", "a.b/Abs_0", "a.b/Exp_0"]


def test_a_node_between_two_modules_belongs_to_the_one_whose_output_it_reads():
    def build(t, x):
        return scoped(t.op("Abs", [t.op("Relu", [scoped(t.op("Neg", [x]), "", "a")])]), "", "b")

    made = model([], build)
    name_from_scopes(made, "c", set())
    assert names(made) == ["a/Neg_0", "a/Relu_0", "b/Abs_0"]


def test_a_node_without_any_named_neighbour_takes_a_siblings_or_the_components_name():
    def build(t, x):
        scoped(t.op("Neg", [x]), "", "a")
        return t.op("Not", [t.op("IsNaN", [x])])

    made = model([], build)
    name_from_scopes(made, "c", set())
    assert names(made) == ["a/Neg_0", "a/IsNaN_0", "a/Not_0"]

    alone = model([], lambda t, x: t.op("Relu", [x]))
    name_from_scopes(alone, "text_encoder", set())
    assert names(alone) == ["text_encoder/Relu_0"]


def test_weights_keep_their_checkpoint_key_also_when_folded():
    transposed = weight("val_3", np.ones((4, 4), np.float32), ["a.weight"])
    bias = weight("a.bias", np.ones(4, np.float32))
    constant = weight("val_7", np.full(4, 2, np.float32), ["val_5", "val_6"])

    def build(t, x, val_3, a_bias, val_7):
        x = scoped(t.op("MatMul", [x, val_3]), "", "a")
        return scoped(t.op("Mul", [scoped(t.op("Add", [x, a_bias]), "", "a"), val_7]), "", "b")

    made = model([transposed, bias, constant], build)
    name_from_scopes(made, "c", {"a.weight", "a.bias"})
    assert set(made.graph.initializers) == {"a.weight", "a.bias", "b/Mul_0:in1"}


def test_a_weight_folded_twice_into_the_same_bytes_is_kept_once():
    one, two = (weight(f"val_{i}", np.eye(4, dtype=np.float32), ["a.weight"]) for i in (1, 2))
    made = model([one, two], lambda t, x, val_1, val_2: t.op("MatMul", [t.op("MatMul", [x, val_1]), val_2]))
    name_from_scopes(made, "c", {"a.weight"})
    assert list(made.graph.initializers) == ["a.weight"]
    assert [node.inputs[1].name for node in made.graph] == ["a.weight", "a.weight"]


def test_a_weight_used_in_two_forms_has_two_names():
    plain = weight("a.weight", np.arange(16, dtype=np.float32).reshape(4, 4))
    turned = weight("val_1", np.arange(16, dtype=np.float32).reshape(4, 4).T, ["a.weight"])
    made = model([plain, turned], lambda t, x, a_weight, val_1: t.op("MatMul", [t.op("MatMul", [x, a_weight]), val_1]))
    name_from_scopes(made, "c", {"a.weight"})
    assert list(made.graph.initializers) == ["a.weight", "a.weight.1"]


def test_names_survive_a_tool_and_what_it_adds_is_named():
    def build(t, x, folded, a_weight):
        x = t.op("MatMul", [x, a_weight], name="a/MatMul_0")
        x = t.op("Add", [x, folded], name="onnxsim_fused_7")
        return t.op("Relu", [x], name=None)

    made = model([weight("folded", np.ones(4, np.float32)), weight("a.weight", np.eye(4, dtype=np.float32))], build)
    complete_names(made)
    assert names(made) == ["a/MatMul_0", "a/Add_0", "a/Relu_0"]
    assert set(made.graph.initializers) == {"a.weight", "a/Add_0:in1"}
    before = names(made)
    complete_names(made)
    assert names(made) == before


def test_a_parameter_of_the_model_itself_keeps_its_key_through_a_tool():
    def build(t, x, tool_7, no_memory):
        return t.op("Add", [t.op("Add", [x, tool_7], name="a/Add_0"), no_memory], name="a/Add_1")

    def made(name):
        return model([weight(n, np.ones(4, np.float32)) for n in ("tool_7", name)], build)

    exported = made("no_memory")
    name_from_scopes(exported, "c", {"no_memory"})
    assert set(exported.graph.initializers) == {"no_memory", "c/Add_0:in1"}
    assert weights(exported) == {"no_memory"}
    tools = made("no_memory")
    complete_names(tools, weights(exported))
    assert set(tools.graph.initializers) == {"no_memory", "a/Add_0:in1"}


def test_duplicate_names_become_unique_and_the_first_keeps_its_own():
    def build(t, x):
        x = t.op("Relu", [x], name="a/Relu_0")
        x = t.op("Relu", [x], name="a/Relu_0")
        return t.op("Relu", [x], name="a/Relu_1")

    made = model([], build)
    complete_names(made)
    assert names(made) == ["a/Relu_0", "a/Relu_2", "a/Relu_1"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("detr_decoder.layers.3.vision_cross_attn/MatMul_0", "detr_decoder.layers.3.vision_cross_attn"),
        ("text_encoder/Cast_12", "text_encoder"),
        ("MatMul_0", None),
        ("", None),
        (None, None),
        ("a/b/MatMul_0", None),
        ("a/MatMul", None),
    ],
)
def test_a_module_path_is_what_stands_before_the_slash(name, path):
    assert module_path(name) == path
