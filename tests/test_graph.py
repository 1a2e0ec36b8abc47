"""Canonical ONNX files: what they leave out, what they keep, and how weights are written."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam3_build.errors import BuildError
from sam3_build.graph import files

RANDOM = np.random.default_rng(0)
LARGE = RANDOM.standard_normal((64, 100), np.float32)
OTHER = RANDOM.standard_normal((3, 33, 64), np.float32)


def model(noise="first"):
    """`y = (x @ large) + half(small)` with everything that a canonical file leaves out."""
    nodes = [
        helper.make_node("MatMul", ["x", "large"], ["m"], name="a/MatMul_0", doc_string=noise),
        helper.make_node("Cast", ["half"], ["h"], name="a/Cast_0", to=TensorProto.FLOAT),
        helper.make_node("Add", ["m", "h"], ["y"], name="a/Add_0"),
        helper.make_node("Shape", ["empty"], ["s"], name="a/Shape_0"),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 33, 64])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 33, 100]),
            helper.make_tensor_value_info("s", TensorProto.INT64, [2]),
        ],
        [
            numpy_helper.from_array(LARGE, "large"),
            numpy_helper.from_array(np.float16([0.5]), "half"),
            numpy_helper.from_array(np.zeros((0, 4), np.float32), "empty"),
        ],
        doc_string=noise,
        value_info=[helper.make_tensor_value_info("m", TensorProto.FLOAT, ["batch", 33, 100])],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=8, producer_name=noise)
    proto.producer_version = noise
    proto.graph.node[0].metadata_props.add(key="namespace", value=noise)
    proto.metadata_props.add(key="exported", value=noise)
    return onnx_ir.from_proto(proto)


def compute(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": OTHER})[0]


def test_bytes_do_not_depend_on_where_a_model_comes_from(tmp_path):
    files.save(model("first"), tmp_path / "a.onnx")
    files.save(model("second"), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_nothing_is_left_but_the_graph_and_its_interface(tmp_path):
    files.save(model(), tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    proto = onnx.load(tmp_path / "m.onnx")
    assert not proto.producer_name and not proto.producer_version and not proto.metadata_props
    assert not proto.graph.doc_string and not proto.graph.value_info
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)
    assert proto.ir_version == 9, "the oldest that has opset 20"
    assert [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == ["batch", 33, 64]
    assert [d.dim_param or d.dim_value for d in proto.graph.output[0].type.tensor_type.shape.dim] == ["batch", 33, 100]


@pytest.mark.parametrize(("opset", "oldest"), [(18, 8), (19, 9), (20, 9), (21, 10), (23, 11)])
def test_a_file_has_the_oldest_ir_version_that_its_opset_allows(tmp_path, opset, oldest):
    """ONNX Runtime refuses a file of a newer one than it knows, whatever the file uses of it."""
    given = model()
    given.graph.opset_imports[""] = opset
    given.graph.opset_imports["com.microsoft"] = 1  # says nothing of IR versions
    given.ir_version = 13
    files.save(given, tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx").ir_version == oldest


# Of onnx.proto: the IR version that brought an element type.
BROUGHT = {
    "bfloat16": 4,
    "float8e4m3fn": 9,
    "float8e5m2": 9,
    "int4": 10,
    "uint4": 10,
    "float4e2m1": 11,
    "float8e8m0": 12,
}


@pytest.mark.parametrize(("kind", "ir_version"), BROUGHT.items())
def test_no_operator_set_takes_a_type_that_its_oldest_ir_version_lacks(kind, ir_version):
    takes = [
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == ""
        and any(f"tensor({kind})" in constraint.allowed_type_strs for constraint in schema.type_constraints)
    ]
    oldest = [helper.find_min_ir_version_for([helper.make_opsetid("", opset)]) for opset in takes]
    assert takes and min(oldest) >= ir_version


def test_a_saved_model_computes_the_same(tmp_path):
    files.save(model(), tmp_path / "m.onnx")
    np.testing.assert_allclose(compute(tmp_path / "m.onnx"), OTHER @ LARGE + 0.5, atol=1e-5)


def test_loading_and_saving_again_gives_the_same_bytes(tmp_path):
    (tmp_path / "one").mkdir()
    files.save(model(), tmp_path / "one" / "m.onnx")
    files.save(files.load(tmp_path / "one"), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "one" / "m.onnx").read_bytes()


def test_the_model_keeps_its_weights_after_it_was_saved(tmp_path):
    made = model()
    files.save(made, tmp_path / "a.onnx")
    files.save(made, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_large_models_have_their_weights_beside_them_at_page_boundaries(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "INLINE_LIMIT", 4096)
    files.save(model(), tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    stored = {t.name: t for t in onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer}
    assert stored["large"].data_location == TensorProto.EXTERNAL
    place = {entry.key: entry.value for entry in stored["large"].external_data}
    assert place == {"location": "m.onnx.data", "offset": "0", "length": str(LARGE.nbytes)}
    assert stored["half"].raw_data, "small tensors stay where shape inference sees them"
    np.testing.assert_allclose(compute(tmp_path / "m.onnx"), OTHER @ LARGE + 0.5, atol=1e-5)


def test_every_tensor_beside_a_model_starts_at_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "INLINE_LIMIT", 1)
    made = model()
    second = onnx_ir.Value(name="second", const_value=onnx_ir.tensor(LARGE * 2, name="second"))
    made.graph.initializers["second"] = second
    files.save(made, tmp_path / "m.onnx")
    read = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    np.testing.assert_array_equal(read["second"], LARGE * 2)
    stub = onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer[-1]
    assert int({e.key: e.value for e in stub.external_data}["offset"]) % files.ALIGNMENT == 0


def test_a_model_with_data_beside_it_becomes_one_file_below_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "INLINE_LIMIT", 1)
    (tmp_path / "large").mkdir()
    files.save(model(), tmp_path / "large" / "m.onnx")
    monkeypatch.undo()
    files.save(files.load(tmp_path / "large"), tmp_path / "small.onnx")
    files.save(model(), tmp_path / "direct.onnx")
    assert (tmp_path / "small.onnx").read_bytes() == (tmp_path / "direct.onnx").read_bytes()


def test_an_existing_file_is_never_written_over(tmp_path):
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(FileExistsError):
        files.save(model(), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"


def test_a_folder_must_hold_one_onnx_file(tmp_path):
    with pytest.raises(BuildError, match=r"should hold one ONNX file, but holds \[\]"):
        files.load(tmp_path)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31, 2**40])
def test_varints_are_those_of_protobuf(number):
    from google.protobuf.internal.encoder import _VarintBytes

    assert files._varint(number) == _VarintBytes(number)
