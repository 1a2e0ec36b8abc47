"""Seeded weights, and weights read from safetensors files."""

from __future__ import annotations

import hashlib
import json

import pytest
import sam3_weights as weights
import torch
from safetensors.torch import save_file

from sam3_build.errors import BuildError

pytestmark = pytest.mark.ci

PATH = {"path": True}


def load(component, source, config, file):
    """Load a component whose tensors were listed a moment before."""
    return weights.load(component, source, config, file, weights.inventory(source, config, file)[component])


@pytest.fixture(scope="module")
def state(tensors, config):
    """A whole Sam3Model's state dict, with zeros where no component looks."""
    held = {key: tensor for loaded in tensors.values() for key, tensor in loaded.items()}
    return {key: held.get(key, torch.zeros(shape)) for key, shape in weights.whole_model(config).items()}


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(state, path, metadata={"format": "pt"})
    return path


def test_a_seeded_tensor_depends_on_its_seed_and_name_only(config, tensors):
    again, other = (load("geometry_encoder", {"random": {"seed": seed}}, config, None) for seed in (0, 1))
    for key, tensor in tensors["geometry_encoder"].items():
        assert torch.equal(tensor, again[key])
        assert not torch.equal(tensor, other[key])
    assert not torch.equal(
        again["geometry_encoder.label_embed.weight"][0], again["geometry_encoder.cls_embed.weight"][0]
    )


def test_seeded_weights_keep_activations_near_one(tensors):
    loaded = tensors["decoder"]
    norms = torch.cat([t for k, t in loaded.items() if k.endswith("norm.weight")])
    biases = torch.cat([t for k, t in loaded.items() if k.endswith(".bias")])
    fc1 = loaded["detr_encoder.layers.0.mlp.fc1.weight"]
    assert norms.mean() == pytest.approx(1, abs=0.02) and norms.std() == pytest.approx(0.1, abs=0.02)
    assert biases.mean() == pytest.approx(0, abs=0.02) and biases.std() == pytest.approx(0.1, abs=0.02)
    assert fc1.std() * fc1.shape[1] ** 0.5 == pytest.approx(1, abs=0.05)
    assert all(t.dtype == torch.float32 for t in loaded.values())


def test_no_two_seeded_tensors_are_alike(tensors):
    digests = [hashlib.sha256(t.numpy().tobytes()).hexdigest() for loaded in tensors.values() for t in loaded.values()]
    assert len(digests) == len(set(digests))


def test_the_inventory_of_a_seed_lists_every_tensor_and_follows_the_seed(config, tensors):
    zero = weights.inventory({"random": {"seed": 0}}, config, None)
    one = weights.inventory({"random": {"seed": 1}}, config, None)
    for component, loaded in tensors.items():
        assert {k: e["shape"] for k, e in zero[component].items()} == {k: list(t.shape) for k, t in loaded.items()}
        assert all(zero[component][key]["digest"] != one[component][key]["digest"] for key in loaded)


def test_the_digest_of_a_stored_tensor_is_that_of_its_bytes(config, file, state):
    for entries in weights.inventory(PATH, config, file).values():
        for key, entry in entries.items():
            assert entry["digest"] == hashlib.sha256(state[key].numpy().tobytes()).hexdigest()
            assert entry["dtype"] == "float32"


def test_a_stored_component_is_read_as_it_was_written(config, file, tensors):
    loaded = load("decoder", PATH, config, file)
    assert set(loaded) == set(tensors["decoder"])
    assert all(torch.equal(loaded[key], tensor) for key, tensor in tensors["decoder"].items())


def test_changing_one_tensor_changes_one_line_of_one_component(config, file, state, tmp_path):
    key = "mask_decoder.instance_projection.weight"
    save_file({**state, key: state[key] + 1}, tmp_path / "tuned.safetensors")
    before, after = (
        weights.inventory(PATH, config, file),
        weights.inventory(PATH, config, tmp_path / "tuned.safetensors"),
    )
    changed = [(c, k) for c in before for k in before[c] if before[c][k] != after[c][k]]
    assert changed == [("decoder", key)]


def test_a_tensor_that_no_output_needs_may_change_or_lack(config, file, state, tmp_path):
    needless = "mask_decoder.semantic_projection.weight"
    rest = {key: tensor for key, tensor in state.items() if not key.endswith(("k_proj.bias", needless))}
    kept = {k: t for k, t in state.items() if k.endswith("k_proj.bias") and "vision_encoder" in k}
    save_file({**rest, **kept}, tmp_path / "less.safetensors")
    assert weights.inventory(PATH, config, tmp_path / "less.safetensors") == weights.inventory(PATH, config, file)


def test_half_precision_files_are_read_as_fp32_and_say_so(config, state, tmp_path):
    save_file({key: tensor.bfloat16() for key, tensor in state.items()}, tmp_path / "half.safetensors")
    entries = weights.inventory(PATH, config, tmp_path / "half.safetensors")
    assert {e["dtype"] for component in entries.values() for e in component.values()} == {"bfloat16"}
    loaded = load("text_encoder", PATH, config, tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}


def test_missing_unexpected_and_misshapen_tensors_are_listed_together(config, state, tmp_path):
    wrong = {k: t for k, t in state.items() if k != "text_projection.weight"}
    wrong["detector_model.text_projection.weight"] = state["text_projection.weight"]
    wrong["text_projection.bias"] = torch.zeros(3)
    wrong["geometry_encoder.final_proj.bias"] = torch.zeros(64, dtype=torch.int32)
    save_file(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(BuildError) as caught:
        weights.inventory(PATH, config, tmp_path / "wrong.safetensors")
    assert str(caught.value).splitlines()[1:] == [
        "  missing: text_projection.weight [64, 64]",
        "  shape: text_projection.bias is [3], the config asks for [64]",
        "  type: geometry_encoder.final_proj.bias is I32; allowed: F32, F16, BF16",
        "  unexpected: detector_model.text_projection.weight",
    ]


@pytest.mark.parametrize("damage", [lambda b: b[:5], lambda b: b[:400], lambda b: b"not a checkpoint at all" * 9])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(config, file, tmp_path, damage):
    (tmp_path / "broken.safetensors").write_bytes(damage(file.read_bytes()))
    with pytest.raises(BuildError, match=r"broken\.safetensors is not a safetensors file"):
        weights.inventory(PATH, config, tmp_path / "broken.safetensors")


def test_a_file_that_was_cut_short_is_refused(config, file, tmp_path):
    (tmp_path / "short.safetensors").write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BuildError, match=r"short\.safetensors is cut short"):
        weights.inventory(PATH, config, tmp_path / "short.safetensors")


def with_header(file, change, to):
    """Write a copy of the file whose header was changed."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    to.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("shape", [128], r"F32 \[128\], which takes 512 bytes, and lies in bytes \d+ to \d+"),
        ("dtype", "F16", r"F16 \[64\], which takes 128 bytes"),
        ("dtype", "F64", r"F64 \[64\], which takes 512 bytes"),
        ("data_offsets", [8, 4], r"F32 \[64\], which takes 256 bytes, and lies in bytes 8 to 4"),
        ("data_offsets", [-256, 0], r"lies in bytes -256 to 0"),
        ("shape", [-8, -8], r"F32 \[-8, -8\]"),
    ],
)
def test_a_tensor_whose_bytes_do_not_fit_is_refused_by_name(config, file, tmp_path, field, value, says):
    key = "text_projection.bias"
    with_header(file, lambda header: header[key].update({field: value}), tmp_path / "odd.safetensors")
    with pytest.raises(BuildError, match=rf"odd\.safetensors is damaged: .* {key} is .*{says}"):
        weights.inventory(PATH, config, tmp_path / "odd.safetensors")


def test_a_file_whose_tensors_share_bytes_is_refused(config, file, tmp_path):
    def share(header):
        header["text_projection.bias"]["data_offsets"] = header["geometry_encoder.final_proj.bias"]["data_offsets"]

    with_header(file, share, tmp_path / "odd.safetensors")
    with pytest.raises(BuildError, match=r"odd\.safetensors is damaged: .*; get the file again"):
        load("text_encoder", PATH, config, tmp_path / "odd.safetensors")
