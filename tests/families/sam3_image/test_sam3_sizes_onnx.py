"""Files for pictures of other sizes against transformers' whole model at that size, with the miniature's weights.

644 x 644 in layout v1, 560 x 1008 (height, width) in layout two_files: in neither do the attention windows of the
miniature, 6 x 6 patches, divide the grid, nor do the learned positions, 12 x 12, fit into it a whole number of times.
"""

from __future__ import annotations

import json
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IMAGES, SAMPLES
from miniature import CONFIG, ROOT, TOKENIZER, WEIGHTS, run_onnx
from PIL import Image
from safetensors.torch import load_file
from sam3_cases import cases_of

from sam3_build.errors import BuildError
from sam3_build.families.sam3_image.config import sam3_config
from sam3_build.families.sam3_image.family import FAMILY
from sam3_build.manifest.load import load
from sam3_build.pipeline import chain
from sam3_build.plan.make import make_plan
from sam3_build.stages import checkpoint, export, patch, simplify
from sam3_build.torch_modules.sam3 import modeling

pytestmark = [pytest.mark.ci, pytest.mark.usefixtures("onnx_roi_align")]

OUTPUTS = ("pred_masks", "pred_boxes", "pred_logits", "presence_logits")
SIZES = {(644, 644): "v1", (560, 1008): "two_files"}


class Files:
    """What a manifest of this size and layout builds: component -> ONNX file, simplified and patched."""

    def __init__(self, size: tuple[int, int], folder: Path) -> None:
        self.size, self.layout = size, SIZES[size]
        self.family = FAMILY.laid_out(self.layout)
        detector = "components: {detector: {patches: [einsum_to_matmul]}}\n" if self.layout == "two_files" else ""
        manifest = folder / "m.yaml"
        manifest.write_text(
            f"extends: {ROOT / 'manifests' / 'sam3_mini.yaml'}\n"
            f"image_size: {list(size)}\nlayout: {self.layout}\nreference: hf\n{detector}"
        )
        self.plan, self.folder = make_plan(load(str(manifest), ROOT)), folder
        listed = self.made("checkpoint", config=CONFIG, weights=WEIGHTS)
        self.config = json.loads((listed / "config.json").read_bytes())
        self.networks = {c.name: partial(run_onnx, self.network(c.name, listed)) for c in self.family.components}

    def made(self, name: str, **inputs: Path) -> Path:
        """Run an action's stage and return what it wrote."""
        stages = {"checkpoint": checkpoint, "export": export, "simplify": simplify, "patch": patch}
        action = self.plan.action(name)
        out = self.folder / name.replace(":", "-")
        out.mkdir()
        stages[action.stage].run(action.params, inputs, out)
        return out

    def network(self, component: str, listed: Path) -> Path:
        inputs = {"config": listed / "config.json", "tensors": listed / f"{component}.json", "weights": WEIGHTS}
        out = self.made(f"simplify:{component}", onnx=self.made(f"export:{component}", **inputs))
        if any(action.name == f"patch:{component}" for action in self.plan.actions):
            out = self.made(f"patch:{component}", onnx=out)
        return out / f"{component}.onnx"

    def run(self, case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        components = {c.name: c for c in self.family.components}
        steps = self.family.pipelines[0].steps
        return chain.run(components, steps, self.networks, case)[steps[-1].name]


@pytest.fixture(scope="module", params=SIZES, ids=["square", "wide"])
def files(request, tmp_path_factory):
    return Files(request.param, tmp_path_factory.mktemp("files"))


def transformers_model(image_size):
    config = deepcopy(json.loads(CONFIG.read_text()))
    config["vision_config"]["backbone_config"]["image_size"] = image_size
    model = modeling().Sam3Model(sam3_config(config))
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


@pytest.fixture(scope="module")
def sam3(files):
    """transformers' model, its config written here, in the order that transformers reads."""
    height, width = files.size
    return transformers_model(height if height == width else [width, height])


def outputs_of(model, case):
    names = {"images": "pixel_values"}
    with torch.no_grad():
        found = model(**{names.get(name, name): torch.from_numpy(array) for name, array in case.items()})
    return {name: getattr(found, name).numpy() for name in OUTPUTS}


def own_pixels(sample, size):
    """Return the picture as transformers' processor scales it, without it: [1, 3, height, width]."""
    with Image.open(IMAGES[sample["image"]]) as picture:
        squashed = picture.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
    return (np.asarray(squashed, np.float32).transpose(2, 0, 1) / 127.5 - 1)[None]


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_the_files_compute_what_transformers_computes_at_this_size(number, files, sam3):
    sample = SAMPLES[number]
    case = cases_of("hf", SAMPLES, TOKENIZER, IMAGES, files.config, files.layout)[number].arrays
    np.testing.assert_allclose(case["images"], own_pixels(sample, files.size), atol=1e-6)
    expected = outputs_of(sam3, case if sample["boxes"] else {k: v for k, v in case.items() if "boxes" not in k})
    found = files.run(case)
    height, width = files.size
    assert found["pred_masks"].shape[2:] == (4 * height // 14, 4 * width // 14)
    for name in OUTPUTS:
        assert found[name].shape == expected[name].shape
        assert np.abs(found[name] - expected[name]).max() <= 1e-4 * np.abs(expected[name]).max(), name


def test_a_pair_in_the_other_order_is_another_function(config):
    case = cases_of("hf", SAMPLES, TOKENIZER, IMAGES, FAMILY.resized(config, (560, 1008)))[1].arrays
    right, wrong = (outputs_of(transformers_model(pair), case) for pair in ([1008, 560], [560, 1008]))
    assert np.abs(right["pred_masks"] - wrong["pred_masks"]).max() > 1e-2 * np.abs(right["pred_masks"]).max()


def test_keep_windows_says_why_it_does_not_apply(files, tmp_path):
    document = {"component": "vision_encoder", "patches": ["keep_windows"]}
    height, width = (side // 14 for side in files.size)
    says = f"attention windows of 6 x 6 do not divide the grid of {height} x {width}, which every layer pads anew"
    with pytest.raises(BuildError, match=says):
        patch.run(document, {"onnx": files.folder / "simplify-vision_encoder"}, tmp_path)
