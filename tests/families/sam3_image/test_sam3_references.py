"""What `reference: hf` and `reference: meta` mean, held against transformers' own modules, prompt by prompt.

hf is the whole of Sam3Model. meta is Meta's order of operations, put together here from Sam3Model's parts as they are:
the geometry encoder always runs, without boxes on its CLS token alone, and all its tokens join the prompt.
"""

from __future__ import annotations

import pytest
import torch
from miniature import SCENES, TOKENIZER
from sam3_cases import cases_of

from sam3_build.torch_modules.sam3 import modeling

pytestmark = pytest.mark.usefixtures("onnx_roi_align")

OUTPUTS = ("pred_masks", "pred_boxes", "pred_logits", "presence_logits")

POSITIVE = {"label": 1, "xywh": (40, 40, 30, 30)}
NEGATIVE = {"label": 0, "xywh": (90, 80, 20, 20)}
OTHERS = [{"label": 1, "xywh": (5, 100, 60, 50)}, {"label": 0, "xywh": (100, 8, 40, 90)}]

PROMPTS = {
    "text": ("red circle", []),
    "positive box": (None, [POSITIVE]),
    "negative box": (None, [NEGATIVE]),
    "text and positive box": ("star", [POSITIVE]),
    "text and negative box": ("star", [NEGATIVE]),
    "several boxes": (None, [POSITIVE, NEGATIVE, *OTHERS]),
    "text and several boxes": ("red circle", [NEGATIVE, POSITIVE, *OTHERS]),
}


@pytest.fixture(scope="module")
def given(config):
    """Return a function that gives a prompt's inputs under a reference."""

    def make(reference, name):
        text, boxes = PROMPTS[name]
        sample = {"image": "image0", "text": text, "boxes": boxes}
        case = cases_of(reference, [sample], TOKENIZER, {"image0": SCENES / "scene1.png"}, config)[0]
        return {key: torch.from_numpy(array) for key, array in case.arrays.items()}

    return make


def as_transformers(sam3, inputs):
    """Run Sam3Model as its users do: no boxes, no box arguments."""
    names = {"images": "pixel_values"}
    with torch.no_grad():
        found = sam3(**{names.get(name, name): tensor for name, tensor in inputs.items()})
    return {name: getattr(found, name) for name in OUTPUTS}


def as_meta(sam3, inputs):
    """Run Sam3Model's parts in the order of Meta's code; boxes that are ignored are left away and not masked."""
    labels = inputs["input_boxes_labels"]
    assert labels.shape[0] == 1
    valid = labels[0] != -10
    boxes, labels = inputs["input_boxes"][:, valid], labels[:, valid]
    with torch.no_grad():
        vision = sam3.get_vision_features(inputs["images"])
        features, positions = vision.fpn_hidden_states[:-1], vision.fpn_position_encoding[:-1]
        words, word_mask = (
            sam3.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output,
            inputs["attention_mask"].bool(),
        )
        geometry = sam3.geometry_encoder(boxes, torch.ones_like(labels, dtype=torch.bool), labels, features, positions)
        assert geometry.last_hidden_state.shape[1] == labels.shape[1] + 1, "a token per box, and CLS"
        prompt = torch.cat([words, geometry.last_hidden_state], 1)
        mask = torch.cat([word_mask, torch.ones(1, labels.shape[1] + 1, dtype=torch.bool)], 1)
        encoded = sam3.detr_encoder([features[-1]], prompt, [positions[-1]], text_mask=mask)
        decoded = sam3.detr_decoder(
            vision_features=encoded.last_hidden_state,
            text_features=prompt,
            vision_pos_encoding=encoded.pos_embeds_flattened,
            text_mask=mask,
            spatial_shapes=encoded.spatial_shapes,
        )
        queries = decoded.intermediate_hidden_states
        boxes = modeling().inverse_sigmoid(decoded.reference_boxes[-1]) + sam3.detr_decoder.box_head(queries[-1])
        masks = sam3.mask_decoder(queries[-1], list(features), encoded.last_hidden_state, prompt, mask)
        return {
            "pred_masks": masks.pred_masks,
            "pred_boxes": modeling().box_cxcywh_to_xyxy(boxes.sigmoid()),
            "pred_logits": sam3.dot_product_scoring(queries, prompt, mask)[-1].squeeze(-1),
            "presence_logits": decoded.presence_logits[-1],
        }


def assert_equal(found, expected):
    for name in OUTPUTS:
        assert found[name].shape == expected[name].shape
        assert (found[name] - expected[name]).abs().max() <= 5e-5 * expected[name].abs().max(), name


def difference(found, expected, name):
    return ((found[name] - expected[name]).abs().max() / expected[name].std()).item()


@pytest.mark.parametrize("name", PROMPTS)
def test_hf_is_transformers_whole_model(name, given, run, sam3):
    assert_equal(run(given("hf", name)), as_transformers(sam3, given("hf", name)))


@pytest.mark.parametrize("name", PROMPTS)
def test_meta_is_text_then_every_geometry_token_with_cls_always_among_them(name, given, run, sam3):
    assert_equal(run(given("meta", name)), as_meta(sam3, given("meta", name)))


def test_the_two_are_two_functions_of_a_text_only_prompt(given, sam3):
    meta, hf = as_meta(sam3, given("meta", "text")), as_transformers(sam3, given("hf", "text"))
    assert difference(hf, meta, "pred_masks") > 0.1
    assert difference(hf, meta, "pred_logits") > 0.1


@pytest.mark.parametrize("name", [name for name in PROMPTS if name != "text"])
def test_the_two_are_one_function_as_soon_as_there_is_a_box(name, given, sam3):
    assert_equal(as_meta(sam3, given("meta", name)), as_transformers(sam3, given("hf", name)))


def test_a_negative_box_is_not_a_positive_one(given, sam3):
    negative, positive = given("hf", "text and negative box"), given("hf", "text and positive box")
    negative["input_boxes"] = positive["input_boxes"]
    assert difference(as_transformers(sam3, negative), as_transformers(sam3, positive), "pred_masks") > 0.1
