"""SAM 1 in miniature, built as users build it: verified, published, and asked; its decoder's graphs in all layouts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import miniature
import numpy as np
import onnx
import pytest
from build_space import ROOT

from sam3_build import runtime
from sam3_build.errors import BuildError
from sam3_build.families.sam1.family import COORDINATES, STABILITY
from sam3_build.graph.emulation import write_emulation
from sam3_build.graph.files import onnx_file
from sam3_build.params import PrecisionParams
from sam3_build.stages import precision

pytestmark = pytest.mark.ci

MANIFEST = "sam1_mini"
FOLDER = ROOT / "artifacts" / MANIFEST
SCENE = miniature.SCENES / "scene1.png"


def doit(*words: str, manifest: str = MANIFEST) -> str:
    argv = [sys.executable, "-m", "doit", f"manifest={manifest}", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built() -> Path:
    doit("-n", "2", "build", "model", "verify")
    doit("publish:openvino")
    return FOLDER


def test_what_passed_is_published_and_answers_as_it_was_verified(built: Path) -> None:
    with runtime.load(built / "published" / "openvino", precision="fp32") as model:
        found = model.segment(SCENE, points=[[55, 55], [100, 90]], point_labels=[1, 0])
        boxes = model.segment(SCENE, boxes=[[40, 40, 70, 70], [24, 106, 68, 150]])
        assert model.runs == {"image_encoder": 1, "mask_decoder": 2}, "a picture is encoded once, a row for each box"
        one = model.segment(SCENE, boxes=[[24, 106, 68, 150]])
        masked = model.segment(SCENE, points=[[135, 132]], mask=miniature.SCENES / "masks" / "star.png")
        with pytest.raises(BuildError, match="has 2 boxes; a prompt is for one object"):
            model.segment(SCENE, boxes=[[40, 40, 70, 70], [24, 106, 68, 150]], points=[[55, 55]])
        with pytest.raises(
            BuildError, match="this model takes no text; pipeline interactive takes boxes, points, mask"
        ):
            model.segment(SCENE, "star")
    assert found.masks.shape == (1, 168, 168) and found.labels == ["object"] and found.masks.any()
    rows, columns = np.nonzero(found.masks[0])
    assert found.boxes[0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert len(boxes) == 2 and (boxes.masks[1] == one.masks[0]).mean() > 0.999
    assert len(masked) == 1 and (masked.masks != found.masks).any()


def test_the_whole_pipeline_was_judged_by_the_gates_of_masks(built: Path) -> None:
    rows = json.loads((built / "report.json").read_text())
    for side in ("onnxruntime fp32, whole pipeline", "openvino fp32, whole pipeline (engine parity)"):
        own = {row["metric"]: row["verdict"] for row in rows if row["comparison"] == f"pytorch fp32 vs {side}"}
        names = ("mask_iou", "score", "choice", "visible", "nonfinite", "incomparable")
        assert own == dict.fromkeys(names, "pass"), side


def test_relative_positions_are_matmuls_in_the_patched_graph(built: Path) -> None:
    """BF16 has no Einsum: with the patch no GEMM is left in FP32 for want of a schema."""
    graphs = {stage: onnx.load(miniature.onnx(f"{stage}:image_encoder", MANIFEST)) for stage in ("simplify", "patch")}
    counts = {stage: [node.op_type for node in graph.graph.node].count("Einsum") for stage, graph in graphs.items()}
    assert counts == {"simplify": 8, "patch": 0}


def test_two_prompts_in_a_batch_and_any_number_of_points_suit_the_graph(built: Path) -> None:
    graph = miniature.onnx("precision:mask_decoder.fp32", MANIFEST)
    random = np.random.default_rng(0)
    for batch, points in ((1, 1), (2, 5), (3, 2)):
        given = {
            "image_embeddings": random.standard_normal((batch, 32, 10, 10)),
            "point_coords": random.random((batch, points, 2)) * 160,
            "point_labels": random.integers(-1, 4, (batch, points)),
            "mask_input": np.zeros((batch, 1, 40, 40)),
            "has_mask_input": np.zeros(batch),
        }
        found = miniature.run_onnx(graph, {name: array.astype(np.float32) for name, array in given.items()})
        assert {name: array.shape for name, array in found.items()} == {
            "iou_predictions": (batch, 4),
            "low_res_masks": (batch, 4, 40, 40),
        }


# ------------------------------------------------------------------ the other layouts


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Layout -> a manifest that builds its decoder alone, with masks of the published size, 256 x 256."""
    folder = tmp_path_factory.mktemp("manifests")
    config = json.loads((ROOT / "manifests" / "sam1_mini.json").read_text())
    for part in ("vision_config", "prompt_encoder_config"):
        config[part]["image_size"] = 1024
    (folder / "sam1_large_masks.json").write_text(json.dumps(config))
    found = {}
    for layout in ("single", "stability"):
        found[layout] = folder / f"sam1_{layout}.yaml"
        found[layout].write_text(
            f"extends: {ROOT}/manifests/sam1_mini.yaml\nlayout: {layout}\n"
            "checkpoint: {random: {seed: 0, config: sam1_large_masks.json}}\ncomponents: {image_encoder: null}\n"
        )
    return found


def inputs(batch: int, points: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(points)
    given = {
        "image_embeddings": random.standard_normal((batch, 32, 64, 64)),
        "point_coords": random.random((batch, points, 2)) * 1024,
        "point_labels": np.ones((batch, points)),
        "mask_input": np.zeros((batch, 1, 256, 256)),
        "has_mask_input": np.zeros(batch),
    }
    return {name: array.astype(np.float32) for name, array in given.items()}


def test_the_graph_of_single_takes_the_mask_that_metas_rule_takes(manifests: dict[str, Path]) -> None:
    """Of one point the best of the last three, of two or more the first."""
    graph = miniature.onnx("precision:mask_decoder.fp32", str(manifests["single"]))
    found = {points: miniature.run_onnx(graph, inputs(2, points)) for points in (2, 3)}
    assert all(one["low_res_masks"].shape == (2, 1, 256, 256) for one in found.values())
    model = onnx.load(graph)
    assert not [node.name for node in model.graph.node if node.op_type in ("GatherND", "Range")]


def test_stability_is_right_in_fp16_only_because_its_counts_stay_fp32(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    """A mask of 256 x 256 has more pixels than FP16 can count."""
    manifest = str(manifests["stability"])
    exact = miniature.run_onnx(miniature.onnx("precision:mask_decoder.fp32", manifest), inputs(1, 2))["iou_predictions"]
    kept = miniature.onnx("precision:mask_decoder.fp16", manifest)
    emulated = write_emulation(kept, tmp_path)
    assert emulated is not None and exact.min() > 0.1
    assert np.abs(miniature.run_onnx(emulated, inputs(1, 2))["iou_predictions"] - exact).max() < 0.02

    whole = {**miniature.params("precision:mask_decoder.fp16", manifest)}
    assert set(whole["fp32_nodes"]) == {COORDINATES, STABILITY}
    (tmp_path / "low").mkdir()
    patched = onnx_file(miniature.folder("patch:mask_decoder", manifest))
    precision.run(
        PrecisionParams.of({**whole, "fp32_nodes": [COORDINATES]}).document(), {"onnx": patched}, tmp_path / "low"
    )
    low = write_emulation(onnx_file(tmp_path / "low"), tmp_path / "low")
    assert low is not None
    wrong = miniature.run_onnx(low, inputs(1, 2))["iou_predictions"]
    assert not np.abs(wrong - exact).max() < 0.02, "the counts no longer need FP32: drop the pattern"
