"""Checkpoints as training leaves them: wrapped names, several state dicts, tables, adapters, TorchScript, NaN."""

from __future__ import annotations

import logging
import math

import pytest
import sam3_weights as weights
import torch
from safetensors.torch import save_file
from sam3_official import official_names, to_official

from sam3_build.commands.inspect import describe, render
from sam3_build.errors import BuildError
from sam3_build.families.sam3_image.keys import KEYS
from sam3_build.weights import finite, key_map, tensors, wrapped_names

pytestmark = pytest.mark.ci

PATH = {"path": True}


@pytest.fixture(scope="module")
def shapes(config):
    return weights.whole_model(config)


@pytest.fixture(scope="module")
def state(shapes):
    generator = torch.Generator().manual_seed(2)
    return {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def official(state):
    return to_official(state)


@pytest.fixture(scope="module")
def wanted(state, config, tmp_path_factory):
    """The inventory of these weights, from a file with nothing out of the ordinary."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(state, path)
    return weights.inventory(PATH, config, path)


# ------------------------------------------------------------------ wrapped names


@pytest.mark.parametrize(
    ("wrap", "prefix", "wrappers"),
    [
        (lambda key: f"module.{key}", "module.", ()),
        (lambda key: f"_orig_mod.{key}", "_orig_mod.", ()),
        (lambda key: f"model.{key}", "model.", ()),
        (lambda key: f"sam3_net.{key}", "sam3_net.", ()),
        (lambda key: f"model._orig_mod.module.{key}", "model._orig_mod.module.", ()),
        (lambda key: key.replace("detector.", "detector.module."), "", ("module",)),
        (
            lambda key: "module." + key.replace(".blocks.", ".blocks._checkpoint_wrapped_module."),
            "module.",
            ("_checkpoint_wrapped_module",),
        ),
    ],
)
def test_names_that_a_wrapper_changed_are_the_same_weights(
    official, wanted, shapes, tmp_path, caplog, wrap, prefix, wrappers
):
    path = tmp_path / "tuned.pt"
    torch.save({wrap(key): tensor for key, tensor in official.items()}, path)
    found = weights.read(path)
    with caplog.at_level(logging.INFO):
        found.log(path.name)
    assert repr(prefix or wrappers[0]) in caplog.text
    assert (found.prefix, found.wrappers, found.format.title) == (prefix, wrappers, "official SAM 3 or 3.1")
    assert {key: tensor.shape for key, tensor in found.tensors.items()} == shapes
    assert found.unknown == () and set(found.keys.values()) | set(found.left_out) == {wrap(key) for key in official}
    assert all(tensors.inventory_line(found.tensors[key]) == line for key, line in wanted["decoder"].items())


def test_a_wrapped_file_has_the_inventory_of_the_bare_one_and_its_facts(official, wanted, config, tmp_path):
    path = tmp_path / "tuned.pt"
    torch.save({f"model.module.{key}": tensor for key, tensor in official.items()}, path)
    assert weights.inventory(PATH, config, path) == wanted
    freqs = "model.module.detector.backbone.vision_backbone.trunk.blocks.*.attn.freqs_cis"
    facts = {
        "format": "official SAM 3 or 3.1",
        "prefix": "model.module.",
        "computed_tables": {freqs: 4},
        "left_out_parts": {"the tracker's neck": 4, "point prompts": 6, "tracker.*, no part of this model": 2},
    }
    assert weights.describe(PATH, path) == facts and facts.items() <= describe(path).items()
    assert set(weights.load("decoder", PATH, config, path, wanted["decoder"])) == set(wanted["decoder"])


def test_a_wrapped_detector_alone_is_the_official_detector(official, wanted, config, tmp_path):
    alone = {f"module.{key}": tensor for key, tensor in official.items() if key.startswith("detector.")}
    torch.save({**alone, "n_averaged": torch.tensor(3)}, tmp_path / "swa.pt")
    assert weights.inventory(PATH, config, tmp_path / "swa.pt") == wanted


@pytest.mark.parametrize("outer", ["", "model.", "module.detector_model."])
def test_transformers_names_may_be_wrapped_too(state, wanted, config, tmp_path, outer):
    save_file({f"{outer}{key}": tensor for key, tensor in state.items()}, tmp_path / "tuned.safetensors")
    assert weights.inventory(PATH, config, tmp_path / "tuned.safetensors") == wanted


@pytest.mark.parametrize(
    "names", [[*official_names()], [f"detector_model.{key}" for key in ("vision_encoder.x", "detr_decoder.y")]]
)
def test_what_belongs_to_a_format_is_no_wrapper(names):
    unwrapped = wrapped_names.unwrap(names, lambda name: key_map.is_known(name, KEYS), key_map.others(KEYS))
    assert (unwrapped.prefix, unwrapped.wrappers, unwrapped.outside) == ("", (), ())
    assert list(unwrapped.own) == names


def test_what_does_not_lie_below_the_prefix_is_unexpected(official, config, tmp_path):
    wrapped = {f"model.{key}": tensor for key, tensor in official.items()}
    torch.save({**wrapped, "criterion.empty_weight": torch.ones(2)}, tmp_path / "lightning.ckpt")
    with pytest.raises(BuildError, match=r"\n  unexpected: criterion\.empty_weight$"):
        weights.inventory(PATH, config, tmp_path / "lightning.ckpt")


def test_a_model_that_a_file_holds_twice_is_refused(official, config, tmp_path):
    both = {f"{outer}.{key}": tensor for outer in ("online_model", "ema_model") for key, tensor in official.items()}
    torch.save(both, tmp_path / "ema.pt")
    with pytest.raises(BuildError, match=r"ema\.pt holds the model twice: below '(online|ema)_model\.' and below"):
        weights.inventory(PATH, config, tmp_path / "ema.pt")
    twins = {**official, "module.detector.dot_prod_scoring.hs_proj.bias": torch.ones(64)}
    twins |= {f"detector.module.{key.removeprefix('detector.')}": t for key, t in official.items() if "hs_proj" in key}
    torch.save(twins, tmp_path / "twins.pt")
    with pytest.raises(BuildError, match=r"twins\.pt holds detector\.dot_prod_scoring\.hs_proj\.\w+ twice"):
        weights.inventory(PATH, config, tmp_path / "twins.pt")


def test_another_model_is_recognised_below_a_wrapper(config, tmp_path):
    torch.save({f"net.image_encoder.trunk.{n}": torch.ones(1) for n in "ab"}, tmp_path / "other.pt")
    with pytest.raises(BuildError, match=r"other\.pt holds SAM 2"):
        weights.inventory(PATH, config, tmp_path / "other.pt")


# ------------------------------------------------------------------ tables


TABLES = {
    "freqs_cis": torch.zeros(4, 8, dtype=torch.complex64),
    "freqs_cis_real": torch.zeros(4, 8),
    "freqs_cis_imag": torch.zeros(4, 8),
    "freqs_cos": torch.zeros(4, 8),
    "sin_cached": torch.zeros(4, 8, dtype=torch.float64),
    "rope.table": torch.zeros(4, 8),
    "rotary_emb.inv_freq": torch.zeros(8),
    "rotary_emb.rope_embeddings_cos": torch.zeros(4, 8),
    "position_ids": torch.zeros(4, dtype=torch.int64),
}


def test_tables_that_every_build_computes_are_left_out_in_every_format(official, state, wanted, config, tmp_path):
    block = "detector.backbone.vision_backbone.trunk.blocks.0.attn"
    torch.save({**official, **{f"{block}.{name}": table for name, table in TABLES.items()}}, tmp_path / "fork.pt")
    assert weights.inventory(PATH, config, tmp_path / "fork.pt") == wanted
    layer = "vision_encoder.backbone.layers.0.attention"
    tables = {f"{layer}.{name}": table.clone() for name, table in TABLES.items()}
    save_file(
        {**state, **tables, "text_encoder.text_model.embeddings.position_ids": torch.arange(4)},
        tmp_path / "f.safetensors",
    )
    assert weights.inventory(PATH, config, tmp_path / "f.safetensors") == wanted
    assert describe(tmp_path / "f.safetensors")["unexpected"] == 0


def test_tables_that_were_left_out_are_counted_by_name(state, tmp_path, caplog):
    tables = {f"vision_encoder.backbone.layers.{n}.attention.rope.theta": torch.ones(2) for n in (0, 1)}
    save_file({**state, **tables, "text_encoder.position_ids": torch.arange(4)}, tmp_path / "fork.safetensors")
    names = {"vision_encoder.backbone.layers.*.attention.rope.theta": 2, "text_encoder.position_ids": 1}
    with caplog.at_level(logging.INFO):
        facts = weights.describe(PATH, tmp_path / "fork.safetensors")
    assert facts["computed_tables"] == names
    assert "  vision_encoder.backbone.layers.*.attention.rope.theta  2\n" in render(
        describe(tmp_path / "fork.safetensors")
    )
    assert "fork.safetensors: left out tables that every build computes: " in caplog.text
    assert "layers.*.attention.rope.theta (2)" in caplog.text


def test_no_tensor_that_is_trained_counts_as_a_table(config):
    trained = [*weights.whole_model({"model_type": "sam3"}), *(n for n in official_names() if "freqs_cis" not in n)]
    assert [name for name in trained if wrapped_names.is_computed(name)] == []
    assert [name for name in trained if {*name.split(".")} & wrapped_names.WRAPPERS] == []


# ------------------------------------------------------------------ several state dicts


@pytest.fixture(scope="module")
def two(official, tmp_path_factory):
    """A training checkpoint whose averaged weights differ from the trained ones in all but the text encoder."""
    path = tmp_path_factory.mktemp("two") / "last.pt"
    ema = {key: t if "language" in key or t.is_complex() else t + 1 for key, t in official.items()}
    extra = {"epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": []}}
    torch.save({"model": official, "ema": {"module": ema, "decay": 0.9}, **extra}, path)
    return path


def test_the_state_dict_that_was_taken_is_told_and_another_one_can_be_named(two, wanted, config, caplog):
    assert weights.inventory(PATH, config, two) == wanted
    facts = {"state_dict": "model", "other_state_dicts": ["ema.module"]}
    with caplog.at_level(logging.INFO):
        assert facts.items() <= weights.describe(PATH, two).items()
    assert "took the state dict 'model', and not 'ema.module'" in caplog.text
    assert facts.items() <= describe(two).items()
    for name in ("ema", "ema.module"):
        averaged = weights.inventory({**PATH, "weights": name}, config, two)
        assert averaged["decoder"] != wanted["decoder"] and averaged["text_encoder"] == wanted["text_encoder"]
        assert weights.describe({**PATH, "weights": name}, two)["state_dict"] == "ema.module"


def test_a_component_is_loaded_from_the_state_dict_that_was_listed(two, wanted, config):
    averaged = weights.inventory({**PATH, "weights": "ema"}, config, two)
    key = "dot_product_scoring.query_proj.bias"
    trained, smooth = (weights.load("decoder", PATH, config, two, each["decoder"])[key] for each in (wanted, averaged))
    assert torch.equal(trained + 1, smooth)
    changed = {name: {**line, "digest": "0" * 64} for name, line in wanted["decoder"].items()}
    with pytest.raises(BuildError, match=r"last\.pt changed after the checkpoint action listed its tensors"):
        weights.load("decoder", PATH, config, two, changed)


def test_the_only_state_dict_is_taken_whatever_its_name(official, wanted, config, tmp_path):
    torch.save({"state_dict": {f"model.{k}": t for k, t in official.items()}, "epoch": 1}, tmp_path / "last.ckpt")
    assert weights.inventory(PATH, config, tmp_path / "last.ckpt") == wanted
    torch.save({"net": official}, tmp_path / "net.pth")
    assert weights.inventory(PATH, config, tmp_path / "net.pth") == wanted


def test_numbers_among_the_tensors_are_left_out_and_said_and_no_other_state_dict_is_taken(
    two, wanted, tmp_path, caplog
):
    content = torch.load(two, weights_only=True)
    content["model"] |= {"num_batches": 3, "best": None, "head._extra_state": {"scale": torch.ones(1)}}
    torch.save(content, tmp_path / "last.pt")
    found = weights.read(tmp_path / "last.pt")
    assert (found.state_dict, found.others) == ("model", ("ema.module",))
    assert all(tensors.inventory_line(found.tensors[key]) == line for key, line in wanted["decoder"].items())
    with caplog.at_level(logging.INFO):
        facts = weights.describe(PATH, tmp_path / "last.pt")
    entries = ["num_batches (int)", "best (NoneType)", "head._extra_state (dict)"]
    assert facts["no_tensors"] == describe(tmp_path / "last.pt")["no_tensors"] == entries
    assert f"last.pt: left out what is no tensor: {', '.join(entries)}" in caplog.text


def test_a_bare_state_dict_may_hold_numbers_too_but_none_that_is_larger(official, wanted, config, tmp_path):
    torch.save({**official, "epoch": 3}, tmp_path / "bare.pt")
    assert weights.inventory(PATH, config, tmp_path / "bare.pt") == wanted
    torch.save({"step": torch.ones(1), "loss": torch.ones(1), "model": official}, tmp_path / "last.pt")
    assert weights.read(tmp_path / "last.pt").state_dict == "model"


def test_the_only_state_dict_is_named_in_the_log_where_its_name_is_unusual(official, tmp_path, caplog):
    torch.save({"model": [1, 2], "ema": official}, tmp_path / "ema.pt")
    with caplog.at_level(logging.INFO):
        assert weights.describe(PATH, tmp_path / "ema.pt")["state_dict"] == "ema"
    assert "ema.pt: took the state dict 'ema'" in caplog.text


# ------------------------------------------------------------------ adapters


def test_an_adapter_is_refused_with_and_without_its_model(state, config, tmp_path):
    lora = {f"base_model.model.{n}.weight": torch.ones(2) for n in ("detr_encoder.x.lora_A", "detr_encoder.x.lora_B")}
    base = {f"base_model.model.{key}": tensor for key, tensor in state.items()}
    for name, content in (("adapter.safetensors", lora), ("whole.safetensors", {**base, **lora})):
        save_file(content, tmp_path / name)
        with pytest.raises(BuildError, match=r"holds LoRA or another adapter, which must be merged .*merge_and_unload"):
            weights.inventory(PATH, config, tmp_path / name)


def test_the_folder_of_an_adapter_is_not_taken_for_its_base_model(state, tmp_path):
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BuildError, match=r"holds an adapter \(adapter_config\.json\), .*merge_and_unload\(\)"):
        describe(tmp_path)


# ------------------------------------------------------------------ NaN


BAD = "detr_decoder.presence_head.layer1.weight"


def spoilt(state, key, dtype=torch.float32):
    tensors = {name: tensor.to(dtype) for name, tensor in state.items()}
    tensors[key] = tensors[key].clone()
    tensors[key].view(-1)[:3] = torch.tensor([math.nan, math.inf, -math.inf], dtype=dtype)
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_that_are_not_finite_are_named_and_nothing_is_loaded_from_them(state, config, tmp_path, dtype):
    path = tmp_path / "nan.pt"
    tuned = to_official(spoilt(state, BAD, dtype))
    torch.save(tuned, path)
    size = state[BAD].numel()
    line = f"{BAD} (of detector.transformer.decoder.presence_token_head.layers.0.weight): 1 NaN and 2 Inf of {size}"
    listed = weights.inventory(PATH, config, path)
    refused = weights.refused(PATH, path, listed)
    assert refused.keys() == {"decoder"} and refused["decoder"].splitlines()[1:] == [f"  {line}"]
    assert refused["decoder"].startswith("a tensor is not finite, and nothing is exported from that")
    found = describe(path)
    assert (found["not_finite"], found["not_finite_names"]) == (1, [line])
    assert line in render(found)
    assert {key: e for key, e in listed["decoder"].items() if "nan" in e or "inf" in e}.keys() == {BAD}
    assert weights.load("vision_encoder", PATH, config, path, listed["vision_encoder"])
    with pytest.raises(BuildError, match=rf"decoder: a tensor is not finite, .*\n  {BAD}: 1 NaN and 2 Inf"):
        weights.load("decoder", PATH, config, path, listed["decoder"])


def test_many_tensors_that_are_not_finite_are_counted(state, config, tmp_path):
    save_file({key: tensor * math.nan for key, tensor in state.items()}, tmp_path / "nan.safetensors")
    listed = weights.inventory(PATH, config, tmp_path / "nan.safetensors")
    refused = weights.refused(PATH, tmp_path / "nan.safetensors", listed)
    assert refused.keys() == listed.keys()
    for name, message in refused.items():
        assert message.startswith(f"{len(listed[name])} tensors are not finite")
        assert message.endswith(f"\n  and {len(listed[name]) - finite.MOST_LISTED} more")
