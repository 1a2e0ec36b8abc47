"""Model configs that no component can be built from are refused, in words that say which value to change."""

from __future__ import annotations

from copy import deepcopy

import pytest
import sam3_weights as weights

from sam3_build.errors import BuildError

BACKBONE = "vision_config.backbone_config"


def changed(config, key, value):
    """Return the config with the value at a dotted key replaced."""
    copied = deepcopy(config)
    *path, last = key.split(".")
    part = copied
    for name in path:
        part = part[name]
    part[last] = value
    return copied


def first(key, config):
    """Return the config with the part of a dotted key in front: which is to blame is tried in order, for a second."""
    name = key.split(".")[0]
    return {name: config[name], **config}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("detr_decoder_config.num_layers", "three", "of detr_decoder_config: .*'num_layers' expected int, got str"),
        ("text_config.num_attention_heads", 5, "of text_config: .*not a multiple of the number of attention heads"),
        ("detr_decoder_config.hidden_act", "rellu", "of detr_decoder_config: KeyError: 'rellu'"),
        (f"{BACKBONE}.model_type", "nope", "of vision_config: KeyError: 'nope'"),
        (f"{BACKBONE}.rope_parameters", {"rope_type": "foo"}, "of vision_config: .*supports only axial rope"),
        ("vision_config", "large", "of vision_config: .*'vision_config'"),
    ],
)
def test_what_transformers_refuses_is_an_error_in_its_words_and_names_the_part(config, key, value, message):
    with pytest.raises(BuildError, match=f"model config: no Sam3Model can be made {message}"):
        weights.complete_config(first(key, changed(config, key, value)))


def test_a_part_that_is_not_the_first_is_named_too(config):
    wrong = changed(config, "detr_encoder_config.hidden_act", "rellu")
    assert next(iter(wrong)) != "detr_encoder_config"
    with pytest.raises(BuildError, match="can be made of detr_encoder_config: KeyError: 'rellu'"):
        weights.complete_config(wrong)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (f"{BACKBONE}.image_size", 170, "image_size is 170, no multiple of patch_size, 14; nearest: 168, 182"),
        (
            f"{BACKBONE}.image_size",
            [182, 170],
            "image_size height is 170, no multiple of patch_size, 14; nearest: 168, 182",
        ),
        (f"{BACKBONE}.image_size", 9, "image_size is 9, no multiple of patch_size, 14; nearest: 14"),
        (f"{BACKBONE}.patch_size", 0, "patch_size should be an integer of at least 1, but is 0"),
        (
            f"{BACKBONE}.image_size",
            [168, 0],
            r"image_size should be an integer .* or a pair \[width, height\].* is \[168, 0\]",
        ),
        (f"{BACKBONE}.image_size", [168, 168, 3], "image_size should be an integer of at least 1, or a pair"),
        ("detr_decoder_config.num_queries", 0, "num_queries should be an integer of at least 1, but is 0"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(config, key, value, message):
    with pytest.raises(BuildError, match=f"model config: .*{message}"):
        weights.complete_config(changed(config, key, value))


def test_misspelt_keys_are_refused_together(config):
    wrong = deepcopy(config)
    wrong["detr_decoder"] = wrong.pop("detr_decoder_config")
    wrong["geometry_encoder_config"]["nmu_layers"] = wrong["geometry_encoder_config"].pop("num_layers")
    wrong["vision_config"]["backbone_config"]["patchsize"] = wrong["vision_config"]["backbone_config"].pop("patch_size")
    with pytest.raises(BuildError) as caught:
        weights.complete_config(wrong)
    assert str(caught.value) == (
        "model config: transformers does not know geometry_encoder_config.nmu_layers; did you mean 'num_layers'?, "
        "nor vision_config.backbone_config.patchsize; did you mean 'patch_size'?, "
        "nor detr_decoder; did you mean 'detr_decoder_config'?"
    )


def test_unknown_keys_that_replace_none_are_let_pass(config):
    """Configs carry keys of other versions of transformers; the shipped one does, too."""
    assert "mask_fuser_hidden_size" in config["geometry_encoder_config"]
    extra = {**config, "num_labels": 2, "use_cache": True, "num_layer": 3}
    extra["text_config"] = {**config["text_config"], "sep_token_id": 49407, "eos_token": None}
    weights.complete_config(extra)


def test_configs_with_all_defaults_or_none_pass(config):
    for given in (config, {"model_type": "sam3"}):
        complete = weights.complete_config(given)
        assert weights.complete_config(complete) == complete
