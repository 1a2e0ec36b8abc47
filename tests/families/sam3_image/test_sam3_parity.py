"""The four components, chained by the declared feeds, against transformers' Sam3Model with the same weights."""

from __future__ import annotations

import pytest
import sam3_weights as weights
import torch

from sam3_build.families.sam3_image.family import FAMILY

pytestmark = pytest.mark.usefixtures("onnx_roi_align")

# Of their hundreds of tensors each takes a run.
LARGE = ("vision_encoder", "decoder")
OUTPUTS = ("pred_masks", "pred_boxes", "pred_logits", "presence_logits")


def in_transformers(sam3, case):
    boxes = {name: case[name] for name in ("input_boxes", "input_boxes_labels") if name in case}
    with torch.no_grad():
        return sam3(
            pixel_values=case["images"], input_ids=case["input_ids"], attention_mask=case["attention_mask"], **boxes
        )


def assert_equal(found, expected):
    for name in OUTPUTS:
        reference = getattr(expected, name)
        assert found[name].shape == reference.shape
        assert (found[name] - reference).abs().max() <= 5e-5 * reference.abs().max(), name


CASES = [
    *(("meta", name) for name in ("sample0", "sample1", "sample2", "batch")),
    *(("hf", name) for name in ("sample0", "sample1", "sample2", "batch", "batch_without_boxes")),
]


@pytest.mark.parametrize(("reference", "name"), CASES)
def test_components_compute_what_transformers_computes(reference, name, cases, run, sam3):
    case = cases[reference][name]
    assert_equal(run(case), in_transformers(sam3, case))


def test_every_case_is_compared_with_transformers(cases):
    assert {(reference, name) for reference, found in cases.items() for name in found} == set(CASES)


def test_boxes_that_leave_the_picture_give_what_transformers_and_the_operators_definition_give(cases, run, sam3):
    edges = [(0.0, 0.0, 0.5, 0.3), (1.0, 1.0, 0.4, 0.4), (0.5, 0.5, 1.6, 1.6), (1.4, -0.3, 0.2, 0.2)]
    case = {
        **cases["meta"]["sample1"],
        "input_boxes": torch.tensor([edges]),
        "input_boxes_labels": torch.tensor([[1, 0, 1, 0]]),
    }
    assert_equal(run(case), in_transformers(sam3, case))


def test_a_text_only_prompt_has_the_geometry_encoders_cls_token_under_meta_only(cases, run):
    meta, hf = run(cases["meta"]["sample0"]), run(cases["hf"]["sample0"])
    assert meta["prompt_mask"].shape == (1, 34)
    assert meta["prompt_mask"][0, 32:].tolist() == [False, True]  # the ignored box, CLS
    assert hf["prompt_mask"].shape == (1, 32)
    assert "geometry_features" not in hf
    assert (meta["pred_masks"] - hf["pred_masks"]).abs().max() > 0.01, "two functions, as checkpoints.md warns"


def test_ignored_boxes_change_nothing_but_the_number_of_tokens(cases, run):
    case = dict(cases["meta"]["sample1"])
    padded = {
        **case,
        "input_boxes": torch.cat([case["input_boxes"], torch.rand(1, 3, 4)], 1),
        "input_boxes_labels": torch.cat([case["input_boxes_labels"], torch.full((1, 3), -10)], 1),
    }
    one, other = run(case), run(padded)
    for name in OUTPUTS:
        difference = (one[name] - other[name]).abs().max()
        assert difference <= 1e-5 * one[name].abs().max(), f"{name}: {difference}"


def test_cls_is_last_and_always_valid(cases, run):
    found = run(cases["meta"]["batch"])
    assert found["geometry_mask"].tolist() == [
        [False, False, False, True],
        [True, True, False, True],
        [True, False, False, True],
    ]


def test_boxes_are_corners_relative_to_the_picture(cases, run):
    boxes = run(cases["meta"]["sample1"])["pred_boxes"]
    assert (boxes[..., 2:] > boxes[..., :2]).all()


def test_every_tensor_of_the_checkpoint_belongs_to_one_component_or_to_none_for_a_reason(config, tensors):
    keys = [key for loaded in tensors.values() for key in loaded]
    assert len(keys) == len(set(keys)), "a tensor in two components"
    whole = weights.whole_model(config)
    assert set(keys) <= set(whole)
    unused = sorted(set(whole) - set(keys))
    expected = {
        "text_encoder.text_projection.weight",  # CLIP's pooled output
        "vision_encoder.neck.fpn_layers.3",  # the coarsest level
        "mask_decoder.semantic_projection",
        "mask_decoder.pixel_decoder.conv_layers.2",  # three levels need two stages
        "mask_decoder.pixel_decoder.norms.2",
        "detr_decoder.box_rpb_embed_x.layer2.bias",  # the same for all keys of a query
        "detr_decoder.box_rpb_embed_y.layer2.bias",
    }
    key_biases = [k for k in unused if k.endswith("k_proj.bias")]  # softmax does not see them
    assert all("vision_encoder" not in k for k in key_biases)
    rest = [k for k in unused if k not in key_biases]
    assert {prefix for k in rest for prefix in expected if k.startswith(prefix)} == expected
    assert all(k.startswith(tuple(expected)) for k in rest)
    attentions = [k for k in whole if k.endswith("k_proj.bias") and "vision_encoder" not in k]
    assert sorted(key_biases) == sorted(attentions)


def test_a_component_owns_the_prefixes_that_it_declares(tensors):
    for component in FAMILY.components:
        assert {key.split(".")[0] for key in tensors[component.name]} == set(component.modules)


@pytest.mark.parametrize(
    "component",
    [pytest.param(c, id=c.name, marks=[pytest.mark.ci] if c.name in LARGE else []) for c in FAMILY.components],
)
def test_zeroing_any_one_tensor_changes_an_output(component, modules, tensors, cases, run):
    found = run(cases["meta"]["sample1"])  # a positive and a negative box, and the words that stand for none
    module, inputs = modules[component.name], {t.name: found[t.name] for t in component.inputs}
    reference = [found[t.name] for t in component.outputs if t.dtype != "bool"]
    for key, tensor in module.state_dict().items():
        before = tensor.clone()
        with torch.no_grad():
            tensor.zero_()
            outputs = [o for o in module(**inputs) if o.dtype != torch.bool]
            tensor.copy_(before)
        change = max(((o - r).abs().max() / r.abs().max()).item() for o, r in zip(outputs, reference, strict=True))
        assert change > 1e-4, f"{key} changes nothing ({change:.1e})"


def test_no_tensor_is_allocated_for_other_components(config):
    model = weights.skeleton("decoder", config)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(key.startswith(("vision_encoder", "text_")) for key in model.state_dict())
