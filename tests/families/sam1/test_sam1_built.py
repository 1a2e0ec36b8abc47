"""SAM 1 in miniature, built as users build it: verified, published, and asked; its decoder's graphs in all layouts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import miniature
import numpy as np
import onnx
import pytest
from build_space import ROOT
from torch import nn

from sam3_build import registry, runtime
from sam3_build.errors import BuildError
from sam3_build.families.sam1.family import COORDINATES, STABILITY
from sam3_build.graph import files
from sam3_build.graph.emulation import write_emulation
from sam3_build.graph.names import name_from_scopes
from sam3_build.params import PrecisionParams
from sam3_build.stages import precision
from sam3_build.stages.export import Interface, hold_against, optimize, to_onnx
from sam3_build.torch_modules.assemble import assemble, compute
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load

CODE = registry.family_code("sam1")

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
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[nn.Module, Path]]:
    """Layout -> its decoder in PyTorch and as ONNX, with few channels and with masks of the published size."""
    folder = tmp_path_factory.mktemp("decoders")
    given = json.loads((ROOT / "manifests" / "sam1_mini.json").read_text())
    for part in ("vision_config", "prompt_encoder_config"):
        given[part]["image_size"] = 1024
    config = CODE.modules.complete_config(given)

    @cache
    def made(layout: str) -> tuple[nn.Module, Path]:
        source, network = {"random": {"seed": 0}}, f"{layout}_as_meta"
        listed = inventory(CODE, source, config, None, layout)["mask_decoder"]
        model = assemble(CODE.modules, network, config, load(CODE, network, source, config, None, listed))
        if layout == "stability":  # logits above -1 everywhere, and above 1 in some places
            for mlp in model.mask_decoder.output_hypernetworks_mlps:
                mlp.proj_out.weight.zero_()
                mlp.proj_out.bias.fill_(0.5)
        family = CODE.family.laid_out(layout)
        spec, sizes = family.component("mask_decoder"), {**family.static_dims(config), **CODE.modules.DYNAMIC_SIZES}
        interface = Interface(spec.inputs, spec.outputs, family.dynamic_dims, sizes)
        graph = to_onnx(model, interface, 20)
        optimize(graph)
        name_from_scopes(graph, "mask_decoder", frozenset(model.state_dict()))
        hold_against(interface, graph, "mask_decoder")
        (folder / layout).mkdir()
        files.save(graph, folder / layout / "mask_decoder.onnx")
        return model, folder / layout / "mask_decoder.onnx"

    return made


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


def test_the_graph_of_single_takes_the_mask_that_pytorch_takes_for_any_number_of_points(exported) -> None:
    model, file = exported("single")
    for batch, points in ((1, 1), (2, 2), (3, 3), (1, 7)):
        expected = compute(model, inputs(batch, points), ["iou_predictions", "low_res_masks"])
        for name, found in miniature.run_onnx(file, inputs(batch, points)).items():
            assert found.shape == expected[name].shape and found.shape[:2] == (batch, 1)
            assert np.abs(found - expected[name]).max() < 1e-5 * np.abs(expected[name]).max(), (name, points)
    assert not [node.name for node in onnx.load(file).graph.node if node.op_type in ("GatherND", "Range")]


def test_stability_is_right_in_fp16_only_because_its_counts_stay_fp32(exported, tmp_path: Path) -> None:
    """A mask of 256 x 256 has more pixels than FP16 can count."""
    model, file = exported("stability")
    exact = compute(model, inputs(1, 2), ["iou_predictions", "low_res_masks"])["iou_predictions"]
    assert exact.min() > 0.1 and exact.max() < 1
    declared = CODE.family.laid_out("stability").component("mask_decoder").fp32_nodes
    assert declared == (COORDINATES, STABILITY)
    errors = {}
    for patterns in (declared, (COORDINATES,)):
        out = tmp_path / str(len(patterns))
        out.mkdir()
        params = PrecisionParams(component="mask_decoder", precision="fp16", fp32_nodes=patterns)
        precision.run(params.document(), {"onnx": file}, out)
        emulated = write_emulation(out / "mask_decoder.fp16.onnx", out)
        assert emulated is not None
        found = miniature.run_onnx(emulated, inputs(1, 2))["iou_predictions"]
        errors[patterns] = float(np.abs(np.nan_to_num(found) - exact).max())
    assert errors[declared] < 0.01
    assert errors[COORDINATES,] > 0.1, "the counts no longer need FP32: drop the pattern"
