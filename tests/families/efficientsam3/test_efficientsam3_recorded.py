"""Our trunks and text encoders against what the authors' code computed: tests/recorded/efficientsam3 says how."""

from __future__ import annotations

from pathlib import Path

import efficientsam3_cases as cases
import numpy as np
import pytest
import torch

from sam3_build.families.efficientsam3 import modules
from sam3_build.torch_modules.assemble import assemble, compute

RECORDED = Path(__file__).parents[2] / "recorded" / "efficientsam3"
# One of each kind in the quick suite, all before a merge.
QUICK = ("repvit_m0_9", "tiny_vit_5m", "efficientvit_b0", ("MobileCLIP-S0", 16))


def marked(values):
    return [value if value in QUICK else pytest.param(*each(value), marks=pytest.mark.ci) for value in values]


def each(value):
    return value if isinstance(value, tuple) else (value,)


ENCODERS = marked((name, context) for name in cases.TEXT_ENCODERS for context in cases.CONTEXTS)


@pytest.fixture(scope="session")
def parts():
    with np.load(RECORDED / "parts.npz") as file:
        return dict(file)


def far(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference over the largest value."""
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", marked(cases.TRUNKS))
def test_a_trunk_computes_what_the_authors_does(name, parts):
    config = cases.config(name)
    model = assemble(modules, "vision_encoder", config, cases.drawn("vision_encoder", config))
    with torch.no_grad():
        found = model.vision_encoder.backbone(cases.image(cases.SIDE)).numpy()[:, :: cases.EVERY]
    assert far(found, parts[name]) < (1e-5 if name.startswith("repvit") else 1e-4)


@pytest.mark.parametrize(("name", "context"), ENCODERS)
def test_a_text_encoder_computes_what_the_authors_does(name, context, parts):
    recorded = {key: parts[f"{name}/{context}/{key}"] for key in ("input_ids", "text_mask", "text_features")}
    config = cases.config("repvit_m0_9", name, context)
    model = assemble(modules, "text_encoder", config, cases.drawn("text_encoder", config))
    ids = recorded["input_ids"]
    found = compute(model, {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}, ["features", "mask"])
    assert far(found["features"][:, :, :: cases.EVERY], recorded["text_features"]) < 1e-5
    np.testing.assert_array_equal(found["mask"], recorded["text_mask"])


# ------------------------------------------------------------------ the whole model at full size

WHOLE = (
    ("repvit_m0_9", "MobileCLIP-S1", 77),
    ("tiny_vit_5m", "MobileCLIP-S0", 16),
    ("efficientvit_b0", "MobileCLIP-B", 77),
)


@pytest.mark.slow
@pytest.mark.parametrize(("trunk", "text_encoder", "context"), WHOLE)
def test_the_whole_model_computes_what_the_authors_does(trunk, text_encoder, context):
    with np.load(RECORDED / f"{cases.file_name(trunk, text_encoder, context)}.npz") as file:
        recorded = dict(file)
    config = cases.config(trunk, text_encoder, context)
    networks = {name: assemble(modules, name, config, cases.drawn(name, config)) for name in cases.COMPONENTS}
    near, masks = (1e-5, 1e-3) if trunk.startswith("repvit") else (1e-4, 2e-3)
    # Random logits are small sums of large products: with boxes, RepViT's were measured at up to 2.7e-5.
    limits = {"pred_masks": masks, "pred_logits": max(near, 5e-5)}
    with torch.no_grad():
        maps = networks["vision_encoder"](cases.image())
        for name, case in cases.CASES.items():
            ids = torch.from_numpy(recorded[f"{name}/input_ids"])
            text, mask = networks["text_encoder"](ids, (ids != 0).long())
            boxes = torch.tensor(case.boxes or [[0.0] * 4])[None]
            labels = torch.tensor(case.labels or [-10])[None]
            tokens, valid = networks["geometry_encoder"](boxes, labels, *maps[2:])
            prompt, known = torch.cat([text, tokens], 1), torch.cat([mask, valid], 1)
            outputs = networks["decoder"](*maps, prompt, known)
            for key, value in zip(("pred_masks", "pred_boxes", "pred_logits", "presence_logits"), outputs, strict=True):
                error = far(cases.sampled(key, value).numpy(), recorded[f"{name}/{key}"])
                assert error < limits.get(key, near), f"{name}: {key}"


# ------------------------------------------------------------------ the heads for clicks at full size


@pytest.mark.ci
def test_the_heads_for_clicks_compute_what_the_authors_predictor_does():
    with np.load(RECORDED / "repvit_m0_9.clicks.npz") as file:
        recorded = dict(file)
    config = cases.config("repvit_m0_9")
    encoder, clicks, previous_mask = (
        assemble(modules, name, config, cases.drawn(name, config))
        for name in ("vision_encoder_as_meta", "clicks", "previous_mask")
    )
    pixels = torch.from_numpy(cases.picture()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        maps = encoder(pixels)
        assert far(cases.sampled("image_embeddings", maps[2]).numpy(), recorded["image_embeddings"]) < 1e-5
        for name, case in cases.CLICKS.items():
            prompts = (
                torch.tensor(case.points).reshape(1, 1, -1, 2),
                torch.tensor(case.labels, dtype=torch.int64).reshape(1, 1, -1),
                torch.tensor(case.box or ()).reshape(1, -1, 4),
            )
            if case.has_mask:
                scores, masks, visible = previous_mask(*prompts, cases.earlier_mask(), torch.tensor([[True]]), *maps)
            else:
                scores, masks, visible = clicks(*prompts, *maps)
            found = {"low_res_masks": masks[0], "iou_predictions": scores[0], "object_score_logits": visible[0]}
            for key, value in found.items():
                error = far(cases.sampled(key, value).numpy(), recorded[f"{name}/{key}"])
                assert error < 1e-5, f"{name}: {key}: {error:.1e}"
