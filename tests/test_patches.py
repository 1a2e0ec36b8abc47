"""The patches on toy graphs: what they rewrite, what they leave, and that no value changes."""

from __future__ import annotations

import re
import sys
from importlib.metadata import packages_distributions

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam3_build import graph, registry
from sam3_build.errors import BuildError
from sam3_build.patches.drop_dead_casts import holds
from sam3_build.spec import Patch
from sam3_build.stages import patch

F, F16, D, I32, I64, BOOL = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
)


def info(name, elem=F, dims=("batch", 4)):
    return helper.make_tensor_value_info(name, elem, dims)


def n(op, inputs, outputs, name=None, **attributes):
    return helper.make_node(op, inputs, outputs, name=name or f"m.{outputs[0]}/{op}_0", **attributes)


def toy(nodes, inputs, outputs, constants=None):
    initialisers = [numpy_helper.from_array(np.asarray(a), k) for k, a in (constants or {}).items()]
    body = helper.make_graph(nodes, "toy", inputs, outputs, initialisers)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture
def patched(tmp_path):
    """Apply patches through the stage; return the model before and after, and the facts."""

    def run(model, *names):
        (tmp_path / "out").mkdir()
        onnx.save(model, tmp_path / "toy.onnx")
        facts = patch.run({"component": "toy", "patches": names}, {"onnx": tmp_path / "toy.onnx"}, tmp_path / "out")
        return onnx.load(tmp_path / "out" / "toy.onnx"), facts

    return run


def results(model, **feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [value.tobytes() for value in session.run(None, feeds)]


def operators(model):
    return [node.op_type for node in model.graph.node]


# ------------------------------------------------------------------ drop_dead_casts


@pytest.mark.parametrize(("to", "rewrites"), [(F, 2), (D, 1)])
def test_a_cast_to_the_type_a_tensor_has_and_a_pair_that_comes_back_are_dropped(patched, to, rewrites):
    chain = [n("Cast", ["x"], ["a"], to=to), n("Cast", ["a"], ["b"], to=F), n("Neg", ["b"], ["y"])]
    model = toy(chain, [info("x")], [info("y")])
    result, facts = patched(model, "drop_dead_casts")
    assert operators(result) == ["Neg"]
    assert facts["rewrites"] == {"drop_dead_casts": rewrites}
    x = np.array([[1e-40, -0.0, np.inf, 3.3]], np.float32)
    assert results(result, x=x) == results(model, x=x)


def test_a_boolean_that_becomes_a_number_and_a_boolean_again_stays_a_boolean(patched):
    chain = [n("Cast", ["m"], ["a"], to=F), n("Cast", ["a"], ["b"], to=BOOL), n("Not", ["b"], ["y"])]
    model = toy(chain, [info("m", BOOL)], [info("y", BOOL)])
    result, _ = patched(model, "drop_dead_casts")
    assert operators(result) == ["Not"]


def test_a_cast_by_way_of_a_wider_type_goes_there_directly(patched):
    chain = [n("Cast", ["i"], ["a"], to=I64), n("Cast", ["a"], ["y"], to=F)]
    model = toy(chain, [info("i", I32)], [info("y")])
    result, _ = patched(model, "drop_dead_casts")
    assert [(node.op_type, node.input[0]) for node in result.graph.node] == [("Cast", "i")]
    i = np.array([[2**31 - 1, -5, 0, 7]], np.int32)
    assert results(result, i=i) == results(model, i=i)


def test_a_dead_cast_that_writes_an_output_gives_its_name_to_the_producer(patched):
    chain = [n("Neg", ["x"], ["a"]), n("Cast", ["a"], ["y"], to=F), n("Abs", ["a"], ["z"])]
    model = toy(chain, [info("x")], [info("y"), info("z")])
    result, _ = patched(model, "drop_dead_casts")
    assert sorted(operators(result)) == ["Abs", "Neg"]
    x = np.array([[1, -2, 3, -4]], np.float32)
    assert results(result, x=x) == results(model, x=x)


def test_a_cast_that_another_node_reads_too_stays_for_that_node(patched):
    chain = [n("Cast", ["x"], ["a"], to=D), n("Cast", ["a"], ["y"], to=F), n("Exp", ["a"], ["z"])]
    model = toy([*chain, n("Neg", ["y"], ["w"])], [info("x")], [info("w"), info("z", D)])
    result, _ = patched(model, "drop_dead_casts")
    assert sorted(operators(result)) == ["Cast", "Exp", "Neg"]


@pytest.mark.parametrize(
    ("source", "to"),
    [(F, F16), (F, I64), (I64, F), (F, BOOL)],
)
def test_a_pair_that_loses_something_is_no_dead_cast(patched, source, to):
    chain = [n("Cast", ["x"], ["a"], to=to), n("Cast", ["a"], ["y"], to=source)]
    model = toy(chain, [info("x", source)], [info("y", source)])
    with pytest.raises(BuildError, match="'drop_dead_casts' found nothing to rewrite"):
        patched(model, "drop_dead_casts")


def test_the_last_cast_between_an_input_and_an_output_stays(patched):
    model = toy([n("Cast", ["x"], ["y"], to=F)], [info("x")], [info("y")])
    with pytest.raises(BuildError, match="found nothing to rewrite"):
        patched(model, "drop_dead_casts")


def test_what_a_type_holds_is_told_from_digits_and_range():
    import ml_dtypes

    types = {np.dtype(t).name: np.dtype(t) for t in (bool, "u1", "i4", "i8", "f2", "f4", "f8", ml_dtypes.bfloat16)}
    pairs = {(w, t) for w in types for t in types if w != t and holds(types[w], types[t])}
    widening = {(w, "bool") for w in types if w != "bool"}
    widening |= {(w, "uint8") for w in ("int32", "int64", "float16", "float32", "float64", "bfloat16")}
    widening |= {("int64", "int32"), ("float64", "int32")}
    widening |= {("float32", "float16"), ("float64", "float16"), ("float64", "float32")}
    widening |= {("float32", "bfloat16"), ("float64", "bfloat16")}
    assert pairs == widening


# ------------------------------------------------------------------ fold_position_tables

BATCH = [n("Shape", ["x"], ["b"], start=0, end=1)]
TABLE = [
    *BATCH,
    n("Concat", ["b", "four"], ["s"], axis=0),
    n("Expand", ["positions", "s"], ["e"]),
    n("Sin", ["e"], ["table"]),
]
CONSTANTS = {"four": np.array([4]), "positions": np.linspace(0, 9, 4, dtype=np.float32)[None]}


@pytest.mark.parametrize("output", [True, False])
def test_a_table_becomes_one_row_and_one_expand(patched, output):
    reads = [n("Add", ["x", "table"], ["y"])]
    outputs = [info("y"), *([info("table")] if output else [])]
    model = toy([*TABLE, *reads], [info("x")], outputs, CONSTANTS)
    result, facts = patched(model, "fold_position_tables")
    assert facts["rewrites"] == {"fold_position_tables": 1}
    assert operators(result) == ["Shape", "Concat", "Expand", "Add"]
    assert all(node.name.startswith("m.") for node in result.graph.node)
    for batch in (1, 2, 7):
        x = np.random.default_rng(batch).standard_normal((batch, 4)).astype(np.float32)
        assert results(result, x=x) == results(model, x=x)


def test_folding_twice_finds_nothing_the_second_time(patched, tmp_path):
    model = toy([*TABLE, n("Add", ["x", "table"], ["y"])], [info("x")], [info("y")], CONSTANTS)
    once, _ = patched(model, "fold_position_tables")
    (tmp_path / "again").mkdir()
    onnx.save(once, tmp_path / "once.onnx")
    params = {"component": "toy", "patches": ["fold_position_tables"]}
    with pytest.raises(BuildError, match="no floating tensor is computed from constants and the batch size alone"):
        patch.run(params, {"onnx": tmp_path / "once.onnx"}, tmp_path / "again")


def test_a_table_that_differs_between_pictures_is_left_alone_and_reported(patched):
    nodes = [
        *BATCH,
        n("Squeeze", ["b"], ["count"]),
        n("Range", ["zero", "count", "one"], ["r"]),
        n("Cast", ["r"], ["f"], to=F),
        n("Unsqueeze", ["f", "one_"], ["table"]),
        n("Add", ["x", "table"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "one": np.int64(1), "one_": np.array([1])}
    with pytest.raises(BuildError, match="'fold_position_tables' found nothing to rewrite"):
        patched(toy(nodes, [info("x")], [info("y")], constants), "fold_position_tables")


def test_a_tensor_that_depends_on_another_dynamic_size_is_no_table(patched):
    table = [n("Shape", ["x"], ["s"]), n("Expand", ["c", "s"], ["e"]), n("Sin", ["e"], ["t"])]
    dims = ("batch", "length")
    nodes = [*table, n("Add", ["x", "t"], ["y"])]
    model = toy(nodes, [info("x", dims=dims)], [info("y", dims=dims)], {"c": np.float32([2])})
    with pytest.raises(BuildError, match="no floating tensor is computed from constants and the batch size alone"):
        patched(model, "fold_position_tables")


def test_inputs_without_a_common_batch_are_refused(patched):
    model = toy([n("Neg", ["x"], ["y"])], [info("x", dims=(2, 4))], [info("y", dims=(2, 4))])
    with pytest.raises(BuildError, match="toy: patch 'fold_position_tables' cannot be applied: its inputs share no"):
        patched(model, "fold_position_tables")


# ------------------------------------------------------------------ the stage

NEG = toy([n("Neg", ["x"], ["y"])], [info("x")], [info("y")])


def test_no_patches_copy_the_graph(patched):
    result, facts = patched(NEG)
    assert facts == {"rewrites": {}, "nodes_before": 1, "nodes": 1}
    assert result.graph.node == NEG.graph.node


def rename_output(surgeon):
    surgeon.outputs[0].name = "renamed"
    return 1


@pytest.mark.parametrize(
    ("requires", "apply", "ensures", "message"),
    [
        ("no Conv", lambda g: 1, None, r"^toy: patch 'fake' cannot be applied: no Conv$"),
        (
            None,
            lambda g: 0,
            None,
            r"patch 'fake' found nothing to rewrite \(does things\); remove it from the patches of",
        ),
        (None, lambda g: 3, "it is still there", r"^toy: patch 'fake' made 3 rewrites, but it is still there$"),
        (None, rename_output, None, r"patch 'fake' changed the inputs or outputs of the graph"),
    ],
)
def test_a_patch_is_held_to_its_promises(patched, monkeypatch, requires, apply, ensures, message):
    fake = Patch("fake", "does things", lambda g: requires, apply, lambda g: ensures)
    monkeypatch.setattr(registry, "patch", lambda name: fake)
    with pytest.raises(BuildError, match=message):
        patched(NEG, "fake")


def test_a_patch_that_breaks_the_graph_is_named(patched, monkeypatch):
    def break_it(surgeon: gs.Graph) -> int:
        surgeon.nodes[0].op = "NoSuchOperator"
        return 1

    fake = Patch("fake", "does things", lambda g: None, break_it, lambda g: None)
    monkeypatch.setattr(registry, "patch", lambda name: fake)
    with pytest.raises(BuildError, match=r"^toy after fake: the graph is not valid ONNX: .*NoSuchOperator"):
        patched(NEG, "fake")


def test_weights_beside_the_file_pass_through(monkeypatch, tmp_path):
    weight = np.arange(4096, dtype=np.float32).reshape(4, 1024)
    chain = [n("MatMul", ["x", "w"], ["a"]), n("Cast", ["a"], ["b"], to=F), n("Neg", ["b"], ["y"])]
    model = toy(chain, [info("x")], [info("y", dims=("batch", 1024))], {"w": weight})
    monkeypatch.setattr(graph, "INLINE_LIMIT", 1000)
    (tmp_path / "beside").mkdir()
    patched_in = tmp_path / "beside" / "toy.onnx"
    onnx.save(model, patched_in, save_as_external_data=True, location="toy.onnx.data")
    (tmp_path / "result").mkdir()
    patch.run({"component": "toy", "patches": ["drop_dead_casts"]}, {"onnx": patched_in}, tmp_path / "result")
    assert sorted(f.name for f in (tmp_path / "result").iterdir()) == ["toy.onnx", "toy.onnx.data"]
    result = onnx.load(tmp_path / "result" / "toy.onnx")
    assert operators(result) == ["MatMul", "Neg"]
    x = np.ones((2, 4), np.float32)
    assert results(result, x=x) == results(onnx.load(patched_in), x=x)


def test_a_node_that_a_patch_makes_is_named_after_a_neighbour(patched, monkeypatch):
    def insert(surgeon: gs.Graph) -> int:
        last = surgeon.nodes[-1]
        between = gs.Variable("between", np.float32, ("batch", 4))
        surgeon.nodes.append(gs.Node("Abs", inputs=[between], outputs=list(last.outputs)))
        last.outputs = [between]
        return 1

    monkeypatch.setattr(registry, "patch", lambda name: Patch("fake", "x", lambda g: None, insert, lambda g: None))
    model, _ = patched(toy([n("Neg", ["x"], ["y"], "a.b/Neg_0")], [info("x")], [info("y")]), "fake")
    assert [(node.name, list(node.output)) for node in model.graph.node] == [
        ("a.b/Neg_0", ["a.b/Neg_0:0"]),
        ("a.b/Abs_0", ["y"]),
    ]


def test_the_patch_stage_declares_every_package_that_a_patch_imports():
    """Also of patches that no manifest of the project lists: else an upgrade would leave their outputs fresh."""
    distributions = packages_distributions()
    for name in registry.names("patches"):
        source = (registry.PACKAGE / "patches" / f"{name}.py").read_text()
        imported = set(re.findall(r"^ +(?:import|from) (\w+)", source, re.MULTILINE))
        packages = imported - sys.stdlib_module_names - {"sam3_build"}
        assert packages
        declared = {tool.replace("_", "-") for tool in patch.STAGE.tools}
        found = {package: {d.replace("_", "-") for d in distributions[package]} for package in packages}
        assert [package for package, names in found.items() if not names & declared] == [], name
