"""What was built for shape profiles is fed in groups of rows that these take; what fits none is skipped and named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import profiled_backend
import pytest
from onnx import TensorProto, helper

from sam3_build.compare.judge import Verdict, judge
from sam3_build.errors import BuildError
from sam3_build.spec import Comparison, Gate, Json
from sam3_build.stages.build import STAGE as BUILD
from sam3_build.stages.chain import STAGE as CHAIN
from sam3_build.stages.localize import STAGE as LOCALIZE
from sam3_build.stages.verify import STAGE as VERIFY

CASES = {"alone": (1, 2), "together": (4, 3), "wide": (2, 9)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A component that sums boxes per row, in FP32 and (the same) FP16, and three recorded cases of it."""
    profiled_backend.install(monkeypatch)
    nodes = [
        helper.make_node("Mul", ["boxes", "boxes"], ["layers.0/Mul_0:0"], name="layers.0/Mul_0"),
        helper.make_node("ReduceSum", ["layers.0/Mul_0:0", "axis"], ["sums"], name="head/ReduceSum_0", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", "num_boxes"])],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for name in ("onnx", "reference", "baseline", "samples"):
        (tmp_path / name).mkdir()
    for precision in ("fp32", "fp16"):
        onnx.save(model, tmp_path / "onnx" / f"decoder.{precision}.onnx")
    rng = np.random.default_rng(1)
    for case, shape in CASES.items():
        boxes = rng.standard_normal(shape).astype(np.float32)
        sums = (boxes * boxes).sum(1)
        np.savez(tmp_path / "reference" / f"{case}.npz", **{"inputs/boxes": boxes, "outputs/sums": sums})
        np.savez(tmp_path / "baseline" / f"{case}.npz", sums=sums)
        np.savez(tmp_path / "samples" / f"{case}.npz", boxes=boxes)
    (tmp_path / "samples" / "cases.json").write_text(json.dumps([{"name": name, "samples": [0]} for name in CASES]))
    return tmp_path


def run(folder: Path, stage: str, *profiles: dict[str, list[int]]) -> dict[str, Json]:
    """Build for the profiles, run a stage on that, and return what it wrote."""
    built, out = folder / "built", folder / stage
    for new in (built, out):
        new.mkdir(exist_ok=True)
    inputs = {name: folder / name for name in ("onnx", "reference", "baseline", "built", "samples")}
    params: dict[str, Json] = {"component": "decoder", "precision": "fp16", "backend": "profiled", "options": {}}
    params |= {"profiles": list(profiles)}
    BUILD.run(params, {"onnx": folder / "onnx"}, built)
    params |= {"row_dim": "batch", "row_axes": {"boxes": 0, "sums": 0}}
    if stage == "verify":
        VERIFY.run({**params, "keep_outputs": True, "rows": 3}, inputs, out)
        return dict(json.loads((out / "statistics.json").read_bytes()))
    if stage == "chain":
        CHAIN.run(
            {**params, "inputs": ["boxes"], "feeds": []}, {k: inputs[k] for k in ("onnx", "built", "samples")}, out
        )
        return {path.name: path.read_text() for path in out.glob("*.json")}
    LOCALIZE.run(params, {**inputs, "fp32": folder / "onnx"}, out)
    return dict(json.loads((out / "depth.json").read_bytes()))


def test_an_engine_for_one_row_is_verified_row_by_row(folder: Path) -> None:
    found = run(folder, "verify", {"batch": [1, 1, 1], "num_boxes": [1, 8, 20]})
    (session,) = profiled_backend.SESSIONS
    assert session.fed == [1] * 7, "one row at a time of 1, 4 and 2"
    sums = found["outputs"]["sums"]
    assert found["cases"] == sorted(CASES) and "skipped" not in found
    assert sums["elements"] == 7 and sums["metrics"]["max_abs_over_range"] < 1e-6
    assert "rows" not in sums["metrics"]
    with np.load(folder / "verify" / "together.npz") as kept, np.load(folder / "baseline" / "together.npz") as expected:
        np.testing.assert_allclose(kept["sums"], expected["sums"], rtol=1e-6)


def test_rows_that_a_profile_takes_together_are_fed_together_and_once_more(folder: Path) -> None:
    found = run(folder, "verify", {"batch": [1, 1, 2], "num_boxes": [1, 8, 20]})
    (session,) = profiled_backend.SESSIONS
    assert session.fed == [1, 2, 2, 2, 2], "alone, together in two groups, its rows 1 and 0 again, wide"
    assert found["outputs"]["sums"]["metrics"]["rows"] < 1e-6


@pytest.mark.parametrize("profiles", [[[4, 4, 4]], [[4, 4, 8]], [[1, 1, 1], [4, 4, 4]]])
def test_an_engine_for_batches_of_four_is_fed_rows_again_in_fours(folder: Path, profiles: list[list[int]]) -> None:
    found = run(folder, "verify", *({"batch": batch, "num_boxes": [1, 8, 20]} for batch in profiles))
    sums = found["outputs"]["sums"]
    assert "not_run" not in sums and sums["metrics"]["rows"] < 1e-6
    assert sums["elements"] == 7, "what fills a batch up is compared with nothing"


def test_a_profile_is_set_for_what_it_takes(folder: Path) -> None:
    small, large = {"batch": [1, 1, 4], "num_boxes": [1, 2, 4]}, {"batch": [1, 1, 1], "num_boxes": [5, 9, 20]}
    found = run(folder, "verify", small, large)
    (session,) = profiled_backend.SESSIONS
    assert found["cases"] == sorted(CASES)
    assert session.fed == [1, 4, 3, 1, 1]


def test_a_case_that_fits_no_profile_is_skipped_and_told_for_information(folder: Path) -> None:
    found = run(folder, "verify", {"batch": [1, 1, 1], "num_boxes": [1, 4, 4]})
    why = "num_boxes is 9, and shape profile 1 takes 1 to 4"
    assert (found["cases"], found["skipped"]) == (["alone", "together"], {"wide": why})
    assert json.loads((folder / "verify" / "skipped.json").read_bytes()) == {"wide": why}
    gates = {"sums": (Gate("cosine", 0.999, at_least=True),)}
    rows = judge(Comparison("decoder", "x", "fp16", "t", "a", None, ("sums",), gates), found)
    assert [(row.output, row.verdict, row.reason) for row in rows if row.output == "wide"] == [
        ("wide", Verdict.INFO, f"not fed: {why}")
    ]


def test_an_engine_that_no_case_fits_is_an_error_that_names_them(folder: Path) -> None:
    with pytest.raises(
        BuildError, match=r"no case fits the shape profiles: alone: num_boxes is 2, and shape profile 1"
    ):
        run(folder, "verify", {"batch": [1, 1, 8], "num_boxes": [10, 10, 20]})


def test_a_chain_skips_what_a_link_before_it_was_not_fed(folder: Path) -> None:
    written = run(folder, "chain", {"batch": [1, 1, 1], "num_boxes": [1, 4, 4]})
    assert json.loads(written["cases.json"]) == ["alone", "together"]
    assert json.loads(written["skipped.json"]).keys() == {"wide"}
    # The next link takes 20 boxes, and yet must not run the case: a join would leave the missing source out.
    (folder / "samples" / "skipped.json").write_text(written["skipped.json"])
    again = run(folder, "chain", {"batch": [1, 1, 4], "num_boxes": [1, 4, 20]})
    assert json.loads(again["cases.json"]) == ["alone", "together"]
    assert again["skipped.json"] == written["skipped.json"]


def test_localize_feeds_both_forms_of_the_graph_the_same_groups(folder: Path) -> None:
    found = run(folder, "localize", {"batch": [1, 1, 1], "num_boxes": [1, 4, 4]})
    assert found["cases"] == ["alone", *(f"together.{row}" for row in range(4))]
    assert found["outputs"]["sums"]["elements"] == 5
