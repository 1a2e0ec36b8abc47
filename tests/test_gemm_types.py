"""What a file computes in is read from the file: FP32 under another name, behind casts, or on INT8 weights is named."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto
from toy_graphs import info, n, toy

from sam3_build import registry
from sam3_build.compare.judge import Row, default_gates, judge, type_gates
from sam3_build.graph import gemms
from sam3_build.params import NetworkParams, PrecisionParams
from sam3_build.spec import TYPES, Comparison, Json
from sam3_build.stages import precision, verify

RNG = np.random.default_rng(2)
WEIGHTS = {f"block.{i}.weight": RNG.standard_normal((4, 4)).astype(np.float32) for i in range(4)}


def source() -> onnx.ModelProto:
    """Four blocks, each a matrix product with a weight; then one of two activations."""
    nodes = [
        n("MatMul", ["x" if i == 0 else f"h{i - 1}", f"block.{i}.weight"], [f"h{i}"], f"layers.{i}/MatMul_0")
        for i in range(4)
    ]
    nodes += [n("Transpose", ["h3"], ["t"], "head/Transpose_0"), n("MatMul", ["h3", "t"], ["y"], "head/MatMul_0")]
    return toy(nodes, [info("x")], [info("y", dims=("batch", "batch"))], WEIGHTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The FP32 graph as the precision stage writes it, and empty folders for others."""
    for name in ("source", "fp32", "onnx"):
        (tmp_path / name).mkdir()
    onnx.save(source(), tmp_path / "source" / "toy.onnx")
    write(tmp_path, "fp32", {}, tmp_path / "fp32")
    return tmp_path


def params(recipe: str, asked: dict[str, Json]) -> PrecisionParams:
    return PrecisionParams.of({"component": "toy", "precision": recipe, **asked})


def write(folder: Path, recipe: str, asked: dict[str, Json], out: Path) -> None:
    precision.run(params(recipe, asked).document(), {"onnx": folder / "source"}, out)


def measured(folder: Path, recipe: str = "fp16", **asked: Json) -> tuple[dict[str, Json], dict[str, Row]]:
    """Return what the file in `onnx` is said to be, as verify says it, and the judge's rows of it."""
    inputs = {"onnx": folder / "onnx", **({} if recipe == "fp32" else {"fp32": folder / "fp32"})}
    told = gemms.measure(NetworkParams(component="toy", precision=recipe), params(recipe, asked), inputs)
    gates = {TYPES: type_gates(recipe)}
    comparison = Comparison("toy", "a vs b", recipe, None, f"verify:toy.{recipe}", None, (TYPES,), gates)
    return told, {row.metric: row for row in judge(comparison, {"outputs": {TYPES: told}})}


def failed(rows: dict[str, Row]) -> set[str]:
    return {metric for metric, row in rows.items() if row.verdict == "fail"}


def test_a_precision_as_it_was_written_passes_and_is_counted(folder: Path) -> None:
    write(folder, "fp16", {}, folder / "onnx")
    told, rows = measured(folder)
    assert told["counts"] == {"FLOAT16": 5}
    assert told["metrics"] == {"gemms": 0, "low_gemms": 5, "low_share": 1.0}
    assert {row.verdict for row in rows.values()} == {"pass"}


def test_fp32_is_asserted_too(folder: Path) -> None:
    write(folder, "fp32", {}, folder / "onnx")
    told, rows = measured(folder, "fp32")
    assert (told["counts"], told["metrics"]) == ({"FLOAT": 5}, {"gemms": 0})
    assert set(rows) == {"gemms"}


def test_fp32_sold_as_fp16_fails_with_counts_and_node_names(folder: Path) -> None:
    onnx.save(source(), folder / "onnx" / "toy.fp16.onnx")
    told, rows = measured(folder)
    assert failed(rows) == {"gemms", "low_gemms", "low_share"}
    assert rows["gemms"].reason == (
        "gemms is 5, not <= 0: 5 of 5 GEMMs: FLOAT where FLOAT16 is expected "
        "(MatMul layers.0/MatMul_0, MatMul layers.1/MatMul_0, MatMul layers.2/MatMul_0, ...)"
    )
    assert told["metrics"] == {"gemms": 5, "low_gemms": 0, "low_share": 0.0}


def test_verify_and_judge_let_fp32_sold_as_fp16_fail_by_nothing_but_its_types(folder: Path) -> None:
    """It is as accurate as can be: its values never tell."""
    onnx.save(source(), folder / "onnx" / "toy.fp16.onnx")
    (folder / "recorded").mkdir()
    for precision_ in ("fp32", "fp16"):
        (folder / f"verified.{precision_}").mkdir()
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    h = np.linalg.multi_dot([x, *WEIGHTS.values()])
    np.savez(folder / "recorded" / "batch.npz", **{"inputs/x": x, "outputs/y": h @ h.T})
    inputs = {"onnx": folder / "fp32", "reference": folder / "recorded"}
    own: dict[str, Json] = {"component": "toy", "keep_outputs": True, "rows": 0}
    verify.STAGE.run({**own, "precision": "fp32"}, inputs, folder / "verified.fp32")
    inputs |= {"onnx": folder / "onnx", "fp32": folder / "fp32", "baseline": folder / "verified.fp32"}
    asked = {**own, "precision": "fp16", "types": params("fp16", {}).document()}
    verify.STAGE.run(asked, inputs, folder / "verified.fp16")
    statistics = json.loads((folder / "verified.fp16" / "statistics.json").read_bytes())
    gates = {"y": default_gates("fp16", "float32"), TYPES: type_gates("fp16")}
    rows = judge(Comparison("toy", "a vs b", "fp16", None, "verify:toy.fp16", None, ("y", TYPES), gates), statistics)
    assert {row.output for row in rows if row.verdict == "fail"} == {TYPES}
    assert "5 of 5 GEMMs: FLOAT where FLOAT16 is expected" in str([row.reason for row in rows])


def test_fp32_arithmetic_behind_fp16_casts_is_fp32(folder: Path) -> None:
    model = source()
    for node in [node for node in model.graph.node if node.name.startswith("layers")]:
        down = n("Cast", [node.input[0]], [f"{node.name}.low"], f"{node.name}.down", to=TensorProto.FLOAT16)
        up = n("Cast", [down.output[0]], [f"{node.name}.high"], f"{node.name}.up", to=TensorProto.FLOAT)
        place = list(model.graph.node).index(node)
        model.graph.node.insert(place, up)
        model.graph.node.insert(place, down)
        node.input[0] = up.output[0]
    onnx.save(model, folder / "onnx" / "toy.fp16.onnx")
    assert measured(folder)[0]["counts"] == {"FLOAT": 5}


def test_weights_that_are_stored_otherwise_than_computed_with_are_named(folder: Path) -> None:
    """FP16 arithmetic whose weights stayed FP32 in the file, behind a cast: neither small nor what it is sold as."""
    write(folder, "fp16", {}, folder / "onnx")
    file = folder / "onnx" / "toy.fp16.onnx"
    model = onnx.load(file)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "block.1.weight")
    value = onnx.numpy_helper.to_array(weight).astype(np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(value, "stored"))
    model.graph.node.insert(0, n("Cast", ["stored"], ["block.1.weight"], "cast/Cast_0", to=TensorProto.FLOAT16))
    onnx.save(model, file)
    told, rows = measured(folder)
    assert told["counts"] == {"FLOAT16": 4, "FLOAT16 on FLOAT weights": 1}
    assert "FLOAT16 on FLOAT weights where FLOAT16 is expected (MatMul layers.1/MatMul_0)" in str(rows["gemms"].reason)


@pytest.mark.parametrize(("activations", "said"), [(False, "FLOAT16 on INT8 weights"), (True, "INT8")])
def test_int8_weights_are_int8_arithmetic_only_when_the_activations_are_int8_too(activations: bool, said: str) -> None:
    scale = np.array(0.1, np.float16)
    nodes = [
        n("Cast", ["x"], ["a"], to=TensorProto.FLOAT16),
        n("QuantizeLinear", ["a", "scale", "zero"], ["q"]),
        n("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        n("DequantizeLinear", ["weight", "scale", "zero_weight"], ["w"]),
        n("Transpose", ["w"], ["wt"]),
        n("MatMul", ["d" if activations else "a", "wt"], ["h"], "layers.0/MatMul_0"),
        n("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = {
        "scale": scale,
        "zero": np.array(0, np.uint8),
        "zero_weight": np.array(0, np.int8),
        "weight": np.ones((4, 4), np.int8),
    }
    model = toy(nodes, [info("x")], [info("y")], constants)
    (found,) = gemms.gemms(ir.serde.deserialize_model(model))
    assert (str(found), found.stored, found.weights) == (said, "INT8", 16)


def test_constant_data_that_is_multiplied_by_a_weight_is_not_taken_for_the_weight() -> None:
    """As the queries of a decoder, which stay FP32 where the residual stream does."""
    nodes = [
        n("Shape", ["x"], ["size"]),
        n("Expand", ["queries", "size"], ["expanded"]),
        n("Cast", ["expanded"], ["low"], to=TensorProto.FLOAT16),
        n("MatMul", ["low", "weight"], ["h"], "layers.0/MatMul_0"),
        n("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = {"queries": np.ones((1, 4), np.float32), "weight": np.ones((4, 4), np.float16)}
    (found,) = gemms.gemms(ir.serde.deserialize_model(toy(nodes, [info("x")], [info("y")], constants)))
    assert (str(found), found.weights) == ("FLOAT16", 16)


def test_a_gemm_that_went_missing_or_came_from_nowhere_is_named(folder: Path) -> None:
    write(folder, "fp16", {}, folder / "onnx")
    file = folder / "onnx" / "toy.fp16.onnx"
    model = onnx.load(file)
    next(node for node in model.graph.node if node.name == "layers.2/MatMul_0").name = "layers.9/MatMul_0"
    onnx.save(model, file)
    reason = str(measured(folder)[1]["gemms"].reason)
    assert "FLOAT16 where none at all is expected (MatMul layers.9/MatMul_0)" in reason
    assert "missing where FLOAT16 is expected (layers.2/MatMul_0)" in reason


def test_what_a_manifest_keeps_by_name_is_expected_in_fp32_and_counts_for_nothing(folder: Path) -> None:
    asked: dict[str, Json] = {"keep_fp32": ["layers.[012]/*"]}
    write(folder, "fp16", asked, folder / "onnx")
    told, rows = measured(folder, **asked)
    assert told["counts"] == {"FLOAT": 3, "FLOAT16": 2}
    assert failed(rows) == set()
    # The same file held against a manifest that asks for less.
    assert measured(folder, keep_fp32=["layers.[01]/*"])[1]["gemms"].value == 1


def keeping(monkeypatch: pytest.MonkeyPatch, nodes: Iterable[str]) -> None:
    """Put a recipe into FP16's place that keeps these nodes by itself."""
    kept = dict.fromkeys(nodes, "greed")
    recipe = replace(registry.precision("fp16"), keep=lambda model, options: kept)
    monkeypatch.setattr(registry, "precision", lambda name: recipe)


def test_a_recipe_that_keeps_most_weights_unasked_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping(monkeypatch, [f"layers.{i}/MatMul_0" for i in range(3)])
    write(folder, "fp16", {}, folder / "onnx")
    told, rows = measured(folder)
    assert told["metrics"] == {"gemms": 0, "low_gemms": 2, "low_share": 0.25}
    assert failed(rows) == {"low_share"}


def test_a_recipe_that_keeps_everything_fails_though_all_is_as_expected(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping(monkeypatch, [node.name for node in source().graph.node])
    onnx.save(source(), folder / "onnx" / "toy.fp16.onnx")
    told, rows = measured(folder)
    assert told["metrics"] == {"gemms": 0, "low_gemms": 0, "low_share": 0.0}
    assert failed(rows) == {"low_gemms", "low_share"}


# ------------------------------------------------------------------ engines


def inspected(
    folder: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], *, names_all_layers: bool = False
) -> tuple[dict[str, Json], dict[str, Row]]:
    """Return what is said of an engine of the FP16 file, and the judge's rows, when its inspector says `told`."""
    write(folder, "fp16", {}, folder / "onnx")
    backend = replace(registry.backend("tensorrt"), layer_types=lambda request: told, names_all_layers=names_all_layers)
    monkeypatch.setattr(registry, "backend", lambda name: backend)
    inputs = {"onnx": folder / "onnx", "fp32": folder / "fp32", "built": folder}
    engine = NetworkParams(component="toy", precision="fp16", backend="tensorrt")
    said = gemms.measure(engine, params("fp16", {}), inputs)
    comparison = Comparison("toy", "a vs b", "fp16", "t4", "x", None, (TYPES,), {TYPES: type_gates("fp16")})
    return said, {row.metric: row for row in judge(comparison, {"outputs": {TYPES: said}})}


def test_an_engine_whose_layers_follow_the_file_passes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, rows = inspected(folder, monkeypatch, {f"layers.{i}/MatMul_0": "FLOAT16" for i in range(4)})
    assert {row.verdict for row in rows.values()} == {"pass"}
    assert said["untold"] == ["head/MatMul_0"]


def test_a_gemm_without_a_layer_fails_where_the_backend_names_them_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {f"layers.{i}/MatMul_0": "FLOAT16" for i in range(4)}
    _, rows = inspected(folder, monkeypatch, told, names_all_layers=True)
    assert failed(rows) == {"gemms"}
    assert "missing where FLOAT16 is expected (head/MatMul_0)" in str(rows["gemms"].reason)


def test_an_engine_that_computes_in_fp32_what_it_was_given_in_fp16_fails_and_names_the_layer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {f"layers.{i}/MatMul_0": "FLOAT" if i == 2 else "FLOAT16" for i in range(4)}
    _, rows = inspected(folder, monkeypatch, told)
    assert failed(rows) == {"gemms"}
    assert "1 of 4 GEMMs: FLOAT where FLOAT16 is expected (MatMul layers.2/MatMul_0)" in str(rows["gemms"].reason)


def test_an_engine_that_names_no_gemm_neither_passes_nor_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, rows = inspected(folder, monkeypatch, {"somewhere/Add_0": "FLOAT16"})
    assert {row.verdict for row in rows.values()} == {"info"}
    assert str(rows["gemms"].reason).startswith("not checked: the engine's layers name 0 of its 5 GEMMs")


def test_an_engine_that_names_one_gemm_of_five_does_not_pass_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, rows = inspected(folder, monkeypatch, {"layers.0/MatMul_0": "FLOAT16"})
    assert {row.verdict for row in rows.values()} == {"info"}
    assert str(rows["gemms"].reason).startswith("not checked: the engine's layers name 1 of its 5 GEMMs")
    assert len(said["untold"]) == 4  # type: ignore[arg-type]


def test_an_engine_that_names_one_gemm_of_five_and_that_is_wrong_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows = inspected(folder, monkeypatch, {"layers.0/MatMul_0": "FLOAT"})
    assert "gemms" in failed(rows)
