"""`manifest.load` against fake plug-ins: what comes out, and the exact words about everything that may be wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sam3_build import registry
from sam3_build.errors import ManifestError
from sam3_build.manifest import extends
from sam3_build.manifest.load import load
from sam3_build.manifest.types import Checkpoint, Download, Hub, Manifest, SourceFile, Target
from sam3_build.pipeline.prompts import Box, boxes_of
from sam3_build.plugins import Backend, Precision, RunRequest, Session
from sam3_build.spec import ComponentSpec, Feed, Json, Layout, ModelFamily, Pipeline, Step, TensorSpec

GOOD = """\
family: toy
checkpoint: {random: {seed: 0, config: toy.json}}
reference: meta
tokenizer: toy_tokenizer.json
opset: 20
components:
  encoder: {patches: [fold]}
  head:
    opset: 19
    precisions: {fp16: {keep_fp32: ["*norm*"]}}
shape_profiles:
  small: {batch: [1, 2, 4], num_boxes: 3}
  large: {batch: [1, 4, 16], num_boxes: [1, 8, 20]}
precisions: [fp32, fp16]
targets:
  cpu: {backend: plain}
  ada:
    backend: fast
    capabilities: ["8.9"]
    shape_profiles: [small]
samples:
  - {image: scene.png, text: red circle}
  - {image: scene.png, boxes: "pos:40,40,30,30;neg: 90,80.5,20,20"}
tolerances: {fp16: {head: {masks: {cosine: 0.99, std_ratio: [0.9, 1.1]}}}}
"""


@dataclass(frozen=True)
class FastOptions:
    capabilities: tuple[str, ...]
    level: int = 3


@dataclass(frozen=True)
class PlainOptions:
    pass


def _impossible(options: Mapping[str, Json], precision: Precision) -> str | None:
    capabilities = options.get("capabilities", [])
    assert isinstance(capabilities, list)
    if "9.0" in capabilities:
        return "9.0 cannot be built; this release takes 7.5, 8.9"
    return "no fp32 on 7.5" if "7.5" in capabilities and precision.name == "fp32" else None


def _session(request: RunRequest) -> AbstractContextManager[Session]:
    raise NotImplementedError


def _backend(name: str, options: type, *, profiles: bool) -> Backend:
    return Backend(
        name=name,
        summary=name,
        product=name,
        extension=".x",
        options=options,
        tools=lambda _: (),
        uses_profiles=profiles,
        env={},
        impossible=_impossible,
        needs_gpu=lambda _: (),
        runs=lambda _: False,
        missing=lambda *_: None,
        cannot_run=lambda *_: None,
        device_fields=lambda *_: {},
        build=lambda *_: {},
        session=_session,
        variants=(),
    )


ENCODER = ComponentSpec(
    "encoder",
    (TensorSpec("images", "float32", ("batch", 3, "size")),),
    (TensorSpec("features", "float32", ("batch", "size")),),
    ("encoder",),
)
HEAD = ComponentSpec(
    "head",
    (TensorSpec("features", "float32", ("batch", "size")), TensorSpec("boxes", "float32", ("num_boxes", 4))),
    (TensorSpec("masks", "float32", ("batch", "size")), TensorSpec("valid", "bool", ("batch",))),
    ("head",),
)
FED_HEAD = Step("head", (Feed("features", (("encoder", "features"),)),))


@dataclass(frozen=True)
class Prompts:
    text: str | None = None
    boxes: tuple[Box, ...] = ()


def _pipeline(*steps: Step) -> Pipeline:
    return Pipeline("image", Prompts, ("images", "boxes"), steps)


FAMILY = ModelFamily(
    name="toy",
    layouts={
        "v1": Layout((ENCODER, HEAD), (_pipeline(Step("encoder"), FED_HEAD),), ("batch", "num_boxes")),
        "v2": Layout(
            (replace(HEAD, inputs=(*ENCODER.inputs, HEAD.inputs[1])),),
            (_pipeline(Step("head")),),
            ("batch", "num_boxes", "num_points"),
        ),
        "v3": Layout((ENCODER,), (_pipeline(Step("encoder")),), ("batch",)),
    },
    references={"meta": "Meta's code", "hf": "transformers"},
    static_dims=lambda _: {"size": 8},
    largest_tensor=lambda *_: 4,
    tokenizer="the toy's lies beside its weights",
    weight_names=("toy.pt",),
    official_config=lambda shapes: {"kind": "toy"},
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that GOOD names, as the current directory, and toy plug-ins in the registry."""
    names = {
        "families": ("toy",),
        "patches": ("drop", "fold"),
        "precisions": ("fp16", "fp32"),
        "backends": ("fast", "plain"),
    }
    backends = {
        "fast": _backend("fast", FastOptions, profiles=True),
        "plain": _backend("plain", PlainOptions, profiles=False),
    }
    monkeypatch.setattr(registry, "names", names.__getitem__)
    monkeypatch.setattr(registry, "family", {"toy": FAMILY}.__getitem__)
    monkeypatch.setattr(registry, "backend", backends.__getitem__)
    (tmp_path / "manifests").mkdir()
    monkeypatch.chdir(tmp_path / "manifests")
    Path("sharded").mkdir()
    index = "sharded/model.safetensors.index.json"
    for name in ("toy.json", "toy_tokenizer.json", "scene.png", "bare.safetensors", index):
        Path(name).write_bytes(b"x")
    return tmp_path


def loaded(project: Path, text: str) -> Manifest:
    Path("m.yaml").write_text(text)
    return load("m", project)


def problems(project: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        loaded(project, text)
    return caught.value.problems


RANDOM = "{random: {seed: 0, config: toy.json}}"
DIGEST = "ab" * 32


def edited(*edits: tuple[str, str]) -> str:
    text = GOOD
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} must stand in GOOD once"
        text = text.replace(old, new)
    return text


# ------------------------------------------------------------------ what comes out


def test_everything_in_a_manifest_reaches_the_result(project: Path) -> None:
    manifest = loaded(project, GOOD)
    here = project / "manifests"
    assert (manifest.name, manifest.path) == ("m", here / "m.yaml")
    assert manifest.files == (SourceFile(here / "m.yaml", hashlib.sha256(GOOD.encode()).hexdigest()),)
    assert (manifest.family, manifest.reference, manifest.opset) == ("toy", "meta", 20)
    assert manifest.checkpoint == Checkpoint(0, None, None, here / "toy.json", {"config": here / "toy.json"})
    assert manifest.tokenizer == here / "toy_tokenizer.json"
    assert manifest.components["encoder"].patches == ("fold",)
    assert manifest.components["encoder"].opset is None
    assert manifest.components["head"].opset == 19
    assert manifest.components["head"].precisions["fp16"].keep_fp32 == ("*norm*",)
    assert list(manifest.shape_profiles) == ["small", "large"]
    assert manifest.shape_profiles["small"] == {"batch": (1, 2, 4), "num_boxes": (3, 3, 3)}
    assert manifest.precisions == ("fp32", "fp16")
    assert manifest.targets["cpu"].options == {}
    assert manifest.targets["cpu"].shape_profiles == ("small", "large")
    assert manifest.targets["ada"].options == {"capabilities": ["8.9"], "level": 3}
    assert manifest.targets["ada"].shape_profiles == ("small",)
    first, second = manifest.samples
    assert (first.pipeline, first.pictures, first.prompts) == ("image", (here / "scene.png",), {"text": "red circle"})
    assert boxes_of(second.prompts) == (Box(1, 40, 40, 30, 30), Box(0, 90, 80.5, 20, 20))
    assert "text" not in second.prompts
    assert manifest.tolerances == {"fp16": {"head": {"masks": {"cosine": 0.99, "std_ratio": (0.9, 1.1)}}}}


def test_a_manifest_cannot_be_changed(project: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded(project, GOOD).opset = 19  # type: ignore[misc]


def test_a_path_finds_a_manifest_from_the_current_folder(project: Path) -> None:
    Path("m.yaml").write_text(GOOD)
    assert load("m.yaml", project) == load("./m.yaml", Path("/elsewhere")) == load("m", project)
    assert load(str(Path("m.yaml").absolute()), project).name == "m"


def test_files_are_looked_for_beside_the_manifest_not_in_the_current_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("m.yaml").write_text(GOOD)
    monkeypatch.chdir(project)
    assert load("m", project).tokenizer == project / "manifests" / "toy_tokenizer.json"


def test_a_checkpoint_can_be_a_folder_or_a_file_with_its_config_beside_it(project: Path) -> None:
    Path("weights").mkdir()
    for name in ("config.json", "model.safetensors"):
        (Path("weights") / name).write_text("")
    folder = project / "manifests" / "weights"
    for source, config in (
        ("{path: weights}", folder / "config.json"),
        ("{path: weights/model.safetensors}", folder / "config.json"),
        ("{path: weights, config: toy.json}", project / "manifests" / "toy.json"),
    ):
        checkpoint = loaded(project, edited((RANDOM, source))).checkpoint
        assert checkpoint.files == {"config": config, "weights": folder / "model.safetensors"}
        assert (checkpoint.seed, checkpoint.hub) == (None, None)


def test_the_folder_of_an_adapter_is_not_taken_for_its_base_model(project: Path) -> None:
    folder = project / "manifests" / "adapter"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ManifestError) as caught:
        loaded(project, edited((RANDOM, "{path: adapter}")))
    assert caught.value.problems == (
        "m.yaml:2: checkpoint.path: holds an adapter (adapter_config.json), which is no model yet, and whose base "
        "model is not what was trained; merge them with PEFT, model.merge_and_unload().save_pretrained(...), and name "
        "that folder",
    )
    (folder / "adapter_config.json").unlink()
    assert loaded(project, edited((RANDOM, "{path: adapter}"))).checkpoint.path == folder


def test_a_checkpoint_can_be_several_files_with_an_index(project: Path) -> None:
    folder = project / "manifests" / "several"
    folder.mkdir()
    shards = [f"model-{n}.safetensors" for n in (1, 2)]
    for name in ("config.json", *shards):
        (folder / name).write_text("")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shards[1], "b": shards[0], "c": shards[1]}}))
    for path in ("several", "several/model.safetensors.index.json"):
        checkpoint = loaded(project, edited((RANDOM, f"{{path: {path}}}"))).checkpoint
        assert checkpoint.files == {
            "config": folder / "config.json",
            "weights": index,
            "shard0": folder / shards[0],
            "shard1": folder / shards[1],
        }
    (folder / shards[1]).unlink()
    with pytest.raises(
        ManifestError,
        match=r"checkpoint\.path: 'model\.safetensors\.index\.json' names files that are missing: .*model-2",
    ):
        loaded(project, edited((RANDOM, "{path: several}")))
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(ManifestError, match=r"names '\.\./model\.safetensors'; all its files must lie beside it"):
        loaded(project, edited((RANDOM, "{path: several}")))


def test_weights_under_the_familys_own_name_need_no_config_and_take_one_that_lies_beside_it(project: Path) -> None:
    folder = project / "manifests" / "metas"
    folder.mkdir()
    (folder / "toy.pt").write_text("")
    for path in ("metas", "metas/toy.pt"):
        assert loaded(project, edited((RANDOM, f"{{path: {path}}}"))).checkpoint.files == {"weights": folder / "toy.pt"}
    (folder / "config.json").write_text("")
    files = loaded(project, edited((RANDOM, "{path: metas}"))).checkpoint.files
    assert files == {"config": folder / "config.json", "weights": folder / "toy.pt"}
    assert loaded(project, edited((RANDOM, "{path: metas, weights: ema}"))).checkpoint.weights == "ema"


def test_a_checkpoint_at_the_hub_is_a_name_and_a_revision_and_brings_its_tokenizer(project: Path) -> None:
    named = loaded(project, edited((RANDOM, "{hub: facebook/sam3}")))
    assert named.checkpoint == Checkpoint(None, Hub("facebook/sam3", "main"), None, None, {})
    assert named.tokenizer == project / "manifests" / "toy_tokenizer.json"
    commit = "{hub: facebook/sam3, revision: 0123abc}"
    bare = loaded(project, edited((RANDOM, commit), ("tokenizer: toy_tokenizer.json\n", "")))
    assert bare.checkpoint.hub == Hub("facebook/sam3", "0123abc")
    assert bare.tokenizer is None


def test_a_checkpoint_at_a_url_is_the_url_and_its_digest(project: Path) -> None:
    digest = "0123456789ABCDEF" * 4
    url = "https://example.org/weights/toy.pt?download=true"
    found = loaded(project, edited((RANDOM, f"{{url: '{url}', sha256: {digest}, weights: ema}}")))
    assert found.checkpoint.download == Download(url, digest.lower())
    assert (found.checkpoint.files, found.checkpoint.weights, found.checkpoint.path) == ({}, "ema", None)
    assert found.checkpoint.is_downloaded
    assert found.tokenizer == project / "manifests" / "toy_tokenizer.json"
    with pytest.raises(ManifestError, match=r"required key 'tokenizer' is missing; the toy's lies beside"):
        loaded(
            project,
            edited((RANDOM, f"{{url: '{url}', sha256: {digest}}}"), ("tokenizer: toy_tokenizer.json\n", "")),
        )


def test_the_tokenizer_is_the_one_beside_the_weights_when_none_is_named(project: Path) -> None:
    folder = project / "manifests" / "weights"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "toy.pt"):
        (folder / name).write_text("")
    without = ("tokenizer: toy_tokenizer.json\n", "")
    for path in ("weights", "weights/toy.pt"):
        with pytest.raises(
            ManifestError, match=r"'tokenizer' is missing: no tokenizer\.json lies beside .*; the toy's lies beside"
        ):
            loaded(project, edited((RANDOM, f"{{path: {path}}}"), without))
    (folder / "tokenizer.json").write_text("")
    assert loaded(project, edited((RANDOM, "{path: weights}"), without)).tokenizer == folder / "tokenizer.json"
    with pytest.raises(ManifestError, match="required key 'tokenizer' is missing; the toy's lies beside its weights"):
        loaded(project, edited(without))


def test_a_family_that_reads_no_text_needs_no_tokenizer_and_takes_none(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "family", {"toy": replace(FAMILY, tokenizer=None)}.__getitem__)
    without = ("tokenizer: toy_tokenizer.json\n", "")
    for source in (RANDOM, "{hub: org/toy}", "{path: bare.safetensors, config: toy.json}"):
        assert loaded(project, edited((RANDOM, source), without)).tokenizer is None
    (said,) = problems(project, GOOD)
    assert said == "m.yaml:4: tokenizer: family 'toy' reads no text; leave it out"


def test_a_folders_weights_may_have_the_familys_own_name_and_no_config(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "manifests" / "weights"
    folder.mkdir()
    text = edited((RANDOM, "{path: weights}"))
    names = "model.safetensors, model.safetensors.index.json, toy.pt"
    assert problems(project, text) == (f"m.yaml:2: checkpoint.path: folder 'weights' holds none of {names}",)
    (folder / "toy.pt").write_text("")
    assert loaded(project, text).checkpoint.files == {"weights": folder / "toy.pt"}
    monkeypatch.setattr(registry, "family", {"toy": replace(FAMILY, official_config=None)}.__getitem__)
    (said,) = problems(project, text)
    assert said == "m.yaml:2: checkpoint.path: has no config.json beside it; name the model's config with 'config:'"


def test_a_dimension_that_only_unlisted_components_have_may_keep_its_range(project: Path) -> None:
    head = GOOD[GOOD.index("  head:") : GOOD.index("shape_profiles:\n")]
    tolerances = GOOD[GOOD.index("tolerances") :]
    assert loaded(project, edited((head, ""), (tolerances, ""))).shape_profiles["small"]["num_boxes"] == (3, 3, 3)


def test_profiles_with_the_same_ranges_are_fine_for_different_targets(project: Path) -> None:
    same = ("{batch: [1, 4, 16], num_boxes: [1, 8, 20]}", "{batch: [1, 2, 4], num_boxes: 3}")
    other = ("samples:\n", '  old: {backend: fast, capabilities: ["8.6"], shape_profiles: [large]}\nsamples:\n')
    manifest = loaded(project, edited(same, other))
    assert manifest.shape_profiles["small"] == manifest.shape_profiles["large"]


def test_thresholds_may_lie_on_the_bounds_of_their_metric(project: Path) -> None:
    found = loaded(project, edited(("{cosine: 0.99, std_ratio: [0.9, 1.1]}", "{cosine: 0, std_ratio: [0, 0]}")))
    assert found.tolerances["fp16"]["head"]["masks"] == {"cosine": 0.0, "std_ratio": (0.0, 0.0)}


def test_the_largest_dimension_is_allowed(project: Path) -> None:
    text = edited(("batch: [1, 2, 4], num_boxes: 3", "batch: [1, 2, 2147483647], num_boxes: 2147483647"))
    assert loaded(project, text).shape_profiles["small"]["num_boxes"] == (2147483647,) * 3


def test_the_baseline_may_have_tolerances_where_it_is_not_selected(project: Path) -> None:
    text = edited(("precisions: [fp32, fp16]", "precisions: [fp16]"), ("{fp16: {head: {masks", "{fp32: {head: {masks"))
    assert "fp32" in loaded(project, text).tolerances


def test_nothing_unverified_is_published_unless_a_target_says_so(project: Path) -> None:
    assert [target.allow_unverified for target in loaded(project, GOOD).targets.values()] == [False, False]
    manifest = loaded(project, edited(("{backend: plain}", "{backend: plain, allow_unverified: true}")))
    assert [target.allow_unverified for target in manifest.targets.values()] == [True, False]
    assert manifest.targets["cpu"].options == {}, "it is no option of the backend, and so in no key"


def test_anchors_and_merge_keys_work_and_explicit_keys_win(project: Path) -> None:
    targets = GOOD[GOOD.index("  cpu:") : GOOD.index("samples:")]
    text = edited(
        (
            targets,
            '  ada: &gpu {backend: fast, capabilities: ["8.9"], level: 2}\n'
            '  old: {<<: *gpu, capabilities: ["8.6"]}\n'
            "  twin: *gpu\n",
        )
    )
    manifest = loaded(project, text)
    assert manifest.targets["old"].options == {"capabilities": ["8.6"], "level": 2}
    assert manifest.targets["twin"] == manifest.targets["ada"]


# ------------------------------------------------------------------ what is wrong

WRONG: dict[str, tuple[tuple[tuple[str, str], ...], tuple[str, ...]]] = {
    "an unknown family": (
        (("family: toy", "family: toi"),),
        ("m.yaml:1: family: unknown family 'toi' (allowed: toy); did you mean 'toy'?",),
    ),
    "an unknown reference": (
        (("reference: meta", "reference: mata"),),
        ("m.yaml:3: reference: unknown reference 'mata' (allowed: hf, meta); did you mean 'meta'?",),
    ),
    "an unknown key at the top": (
        (("tolerances:", "tolerance:"),),
        (
            "m.yaml:24: tolerance: unknown key 'tolerance' (allowed: checkpoint, components, extends, family, "
            "image_size, layout, opset, precisions, reference, samples, shape_profiles, targets, task, tokenizer, "
            "tolerances); did you mean 'tolerances'?",
        ),
    ),
    "an unknown key in a component": (
        (("    opset: 19", "    opsets: 19"),),
        (
            "m.yaml:9: components.head.opsets: unknown key 'opsets' (allowed: opset, patches, precisions); "
            "did you mean 'opset'?",
        ),
    ),
    "unknown names in a component": (
        (("[fold]", "[folt, drop, drop]"), ("  head:", "  haed:"), ("{head: {masks", "{haed: {masks")),
        (
            "m.yaml:7: components.encoder.patches[0]: unknown patch 'folt' (allowed: drop, fold); did you mean 'fold'?",
            'm.yaml:7: components.encoder.patches[2]: patch "drop" is listed twice',
            "m.yaml:8: components.haed: unknown component 'haed' of family 'toy' (allowed: encoder, head); "
            "did you mean 'head'?",
        ),
    ),
    "missing keys": (
        (
            ("reference: meta\n", ""),
            ("seed: 0, ", ""),
            ("    backend: fast\n", ""),
            ("{image: scene.png, text", "{text"),
        ),
        (
            "m.yaml:1: reference: required key 'reference' is missing",
            "m.yaml:2: checkpoint.random.seed: required key 'seed' is missing",
            "m.yaml:16: targets.ada.backend: required key 'backend' is missing",
            "m.yaml:20: samples[0].image: required key 'image' is missing",
        ),
    ),
    "wrong types": (
        (
            ("family: toy", "family: [toy]"),
            ("seed: 0", "seed: '0'"),
            ("opset: 20", "opset: true"),
            ("[fold]", "fold"),
            ("opset: 19", "opset: 21.5"),
            ("text: red circle", "text: no"),
            ('capabilities: ["8.9"]', "capabilities: [8.9]"),
        ),
        (
            'm.yaml:1: family: must be a string, found the list ["toy"]',
            "m.yaml:2: checkpoint.random.seed: must be an integer, found the string '0'",
            "m.yaml:5: opset: must be an integer, found the boolean true",
            "m.yaml:7: components.encoder.patches: must be a list, found the string 'fold'",
            "m.yaml:9: components.head.opset: must be an integer, found the number 21.5",
            "m.yaml:19: targets.ada.capabilities[0]: must be a string, found the number 8.9; put it in quotes",
            "m.yaml:22: samples[0].text: must be a string, found the boolean false; put it in quotes",
        ),
    ),
    "null where something is needed": (
        (("opset: 20", "opset:"), ("  cpu: {backend: plain}", "  cpu:")),
        (
            "m.yaml:5: opset: must be an integer, found nothing (null)",
            "m.yaml:16: targets.cpu: must be a mapping, found nothing (null)",
        ),
    ),
    "opsets out of range and a negative seed": (
        (("opset: 20", "opset: 17"), ("opset: 19", "opset: 21"), ("seed: 0", "seed: -1")),
        (
            "m.yaml:2: checkpoint.random.seed: must be at least 0, found the number -1",
            "m.yaml:5: opset: must be at least 18, found the number 17",
            "m.yaml:9: components.head.opset: must be at most 20, found the number 21",
        ),
    ),
    "two checkpoints": (
        (("{random: {seed: 0, config: toy.json}}", "{random: {seed: 0, config: toy.json}, path: x}"),),
        ("m.yaml:2: checkpoint: takes exactly one of 'random', 'path', 'hub' and 'url', found random and path",),
    ),
    "no checkpoint": (
        (("{random: {seed: 0, config: toy.json}}", "{}"),),
        ("m.yaml:2: checkpoint: takes exactly one of 'random', 'path', 'hub' and 'url', found none",),
    ),
    "a config beside random": (
        (("{random: {seed: 0, config: toy.json}}", "{random: {seed: 0, config: toy.json}, config: toy.json}"),),
        (
            "m.yaml:2: checkpoint.config: is allowed beside 'path', 'hub' or 'url'; "
            "the config of 'random' goes inside 'random'",
        ),
    ),
    "a checkpoint file without its config": (
        (("{random: {seed: 0, config: toy.json}}", "{path: bare.safetensors}"),),
        ("m.yaml:2: checkpoint.path: has no config.json beside it; name the model's config with 'config:'",),
    ),
    "an index of a checkpoint in several files that is none": (
        (("{random: {seed: 0, config: toy.json}}", "{path: sharded}"),),
        (
            "m.yaml:2: checkpoint.path: 'model.safetensors.index.json' is not an index of safetensors files: it "
            "has no 'weight_map'",
        ),
    ),
    "a folder without weights": (
        (("{random: {seed: 0, config: toy.json}}", "{path: .}"),),
        (
            "m.yaml:2: checkpoint.path: folder 'manifests' holds none of model.safetensors, "
            "model.safetensors.index.json, toy.pt",
        ),
    ),
    "a path where a name at the hub should be": (
        (("{random: {seed: 0, config: toy.json}}", "{hub: ./sam3/x}"),),
        (
            "m.yaml:2: checkpoint.hub: must be a name at the hub such as 'facebook/sam3', found './sam3/x'; "
            "a file or folder of this machine goes under 'path'",
        ),
    ),
    "a state dict of a safetensors file": (
        (("{random: {seed: 0, config: toy.json}}", "{path: bare.safetensors, config: toy.json, weights: ema}"),),
        (
            "m.yaml:2: checkpoint.weights: chooses a state dict of a file that torch.save wrote (.pt, .pth, .bin, "
            ".ckpt); 'bare.safetensors' holds one only: leave it out",
        ),
    ),
    "a state dict of random weights": (
        (("{random: {seed: 0, config: toy.json}}", "{random: {seed: 0, config: toy.json}, weights: ema}"),),
        ("m.yaml:2: checkpoint.weights: is allowed beside 'path', 'hub' or 'url' only; 'random' has no state dicts",),
    ),
    "a licence of random weights": (
        (("{random: {seed: 0, config: toy.json}}", "{random: {seed: 0, config: toy.json}, licence: toy.json}"),),
        (
            "m.yaml:2: checkpoint.licence: is allowed beside 'path', 'hub' or 'url' only; random numbers have no "
            "licence",
        ),
    ),
    "a licence that is not there": (
        (("{random: {seed: 0, config: toy.json}}", "{hub: facebook/sam3, licence: toy.jsn}"),),
        ("m.yaml:2: checkpoint.licence: no such file 'toy.jsn'; did you mean 'toy.json'?",),
    ),
    "a URL without a digest": (
        (("{random: {seed: 0, config: toy.json}}", "{url: 'https://example.org/toy.pt'}"),),
        (
            "m.yaml:2: checkpoint: required key 'sha256' is missing beside 'url': take it from whoever publishes the "
            "file, or print that of what the server sends now: curl -L https://example.org/toy.pt | sha256sum",
        ),
    ),
    "a digest that is none": (
        (("{random: {seed: 0, config: toy.json}}", "{url: 'https://example.org/toy.pt', sha256: 12ab}"),),
        ("m.yaml:2: checkpoint.sha256: must be 64 hex digits, found '12ab'",),
    ),
    "a digest of a file here": (
        (("{random: {seed: 0, config: toy.json}}", "{path: bare.safetensors, config: toy.json, sha256: 12ab}"),),
        ("m.yaml:2: checkpoint.sha256: is allowed beside 'url' only; the tensors of 'path' are digested",),
    ),
    "a URL with a password": (
        (
            (
                "{random: {seed: 0, config: toy.json}}",
                f"{{url: 'https://me:secret@example.org/toy.pt', sha256: {DIGEST}}}",
            ),
        ),
        (
            "m.yaml:2: checkpoint.url: must be a URL such as 'https://example.org/model.pt', without an account, found "
            "'https://me:secret@example.org/toy.pt'",
        ),
    ),
    "a path where a URL should be": (
        (("{random: {seed: 0, config: toy.json}}", f"{{url: weights/toy.pt, sha256: {DIGEST}}}"),),
        (
            "m.yaml:2: checkpoint.url: must be a URL such as 'https://example.org/model.pt', without an account, found "
            "'weights/toy.pt'",
        ),
    ),
    "a URL of a page": (
        (("{random: {seed: 0, config: toy.json}}", f"{{url: 'https://example.org/toy/', sha256: {DIGEST}}}"),),
        (
            "m.yaml:2: checkpoint.url: must end in the name of one checkpoint file (.safetensors, .pt, .pth, .bin, "
            ".ckpt), found ''",
        ),
    ),
    "a file at a URL without its config": (
        (("{random: {seed: 0, config: toy.json}}", f"{{url: 'https://example.org/t.safetensors', sha256: {DIGEST}}}"),),
        ("m.yaml:2: checkpoint.url: brings no config.json; name the model's config with 'config:'",),
    ),
    "a state dict of a safetensors file at a URL": (
        (
            (
                "{random: {seed: 0, config: toy.json}}",
                f"{{url: 'https://a.org/t.safetensors', sha256: {DIGEST}, config: toy.json, weights: ema}}",
            ),
        ),
        (
            "m.yaml:2: checkpoint.weights: chooses a state dict of a file that torch.save wrote (.pt, .pth, .bin, "
            ".ckpt); 't.safetensors' holds one only: leave it out",
        ),
    ),
    "a state dict without a name": (
        (("{random: {seed: 0, config: toy.json}}", "{hub: facebook/sam3, weights: ''}"),),
        ("m.yaml:2: checkpoint.weights: is empty; name a state dict of the file, such as 'ema', or leave it out",),
    ),
    "a revision that is none": (
        (("{random: {seed: 0, config: toy.json}}", "{hub: facebook/sam3, revision: 'a b'}"),),
        ("m.yaml:2: checkpoint.revision: must be a branch, a tag or a commit, found 'a b'",),
    ),
    "a revision of a file": (
        (("{random: {seed: 0, config: toy.json}}", "{path: bare.safetensors, config: toy.json, revision: main}"),),
        ("m.yaml:2: checkpoint.revision: is allowed beside 'hub' only; 'path' has no revisions",),
    ),
    "a checkpoint and a config that do not exist": (
        (("{random: {seed: 0, config: toy.json}}", "{path: bar.safetensors, config: to.json}"),),
        (
            "m.yaml:2: checkpoint.path: no such file 'bar.safetensors'; did you mean 'bare.safetensors'?",
            "m.yaml:2: checkpoint.config: no such file 'to.json'; did you mean 'toy.json'?",
        ),
    ),
    "files that do not exist": (
        (
            ("config: toy.json", "config: to.json"),
            ("toy_tokenizer.json", "tokenizers/toy.json"),
            ("{image: scene.png, text", "{image: scen.png, text"),
        ),
        (
            "m.yaml:2: checkpoint.random.config: no such file 'to.json'; did you mean 'toy.json'?",
            "m.yaml:4: tokenizer: no such file 'toy.json': its folder '{here}/tokenizers' does not exist",
            "m.yaml:22: samples[0].image: no such file 'scen.png'; did you mean 'scene.png'?",
        ),
    ),
    "a folder in the place of a file": (
        (("toy_tokenizer.json", "."),),
        ("m.yaml:4: tokenizer: '.' is a folder, a file is needed",),
    ),
    "names that no file can have": (
        (("config: toy.json", 'config: "toy\\0.json"'), ("tokenizer: toy_tokenizer.json", f"tokenizer: {'x' * 300}")),
        (
            "m.yaml:2: checkpoint.random.config: no such file 'toy\\x00.json'; did you mean 'toy.json'?",
            f"m.yaml:4: tokenizer: no such file {'x' * 300!r}; known: "
            "bare.safetensors, m.yaml, scene.png, sharded, toy.json, toy_tokenizer.json",
        ),
    ),
    "a device in the place of a file": (
        (("toy_tokenizer.json", "/dev/null"),),
        ("m.yaml:4: tokenizer: '/dev/null' is a device, a file is needed",),
    ),
    "empty collections": (
        (("precisions: [fp32, fp16]", "precisions: []"), (GOOD[GOOD.index("samples:") :], "samples: []\n")),
        ("m.yaml:14: precisions: is empty; list at least one", "m.yaml:21: samples: is empty; list at least one"),
    ),
    "an unknown precision and a repeated one": (
        (("precisions: [fp32, fp16]", "precisions: [fp32, fp17, fp32, fp16]"),),
        (
            "m.yaml:14: precisions[1]: unknown precision 'fp17' (allowed: fp16, fp32); did you mean 'fp16'?",
            'm.yaml:14: precisions[2]: precision "fp32" is listed twice',
        ),
    ),
    "a precision that is a number, and what stands on it": (
        (("precisions: [fp32, fp16]", "precisions: [16]"),),
        ("m.yaml:14: precisions[0]: must be the name of a precision such as fp16, found the number 16",),
    ),
    "precisions that are no list, and what stands on them": (
        (("precisions: [fp32, fp16]", "precisions: fp16"),),
        ("m.yaml:14: precisions: must be a list, found the string 'fp16'",),
    ),
    "a precision that is unknown, and what stands on it": (
        (("precisions: [fp32, fp16]", "precisions: [fp32, f16]"),),
        ("m.yaml:14: precisions[1]: unknown precision 'f16' (allowed: fp16, fp32); did you mean 'fp16'?",),
    ),
    "components as a list": (
        ((GOOD[GOOD.index("components:") : GOOD.index("shape_profiles:\n")], "components: [encoder, head]\n"),),
        ('m.yaml:6: components: must be a mapping, found the list ["encoder", "head"]; write {encoder: {}, head: {}}',),
    ),
    "components as a list of mappings": (
        ((GOOD[GOOD.index("components:") : GOOD.index("shape_profiles:\n")], "components: [head: {opset: 20}]\n"),),
        ('m.yaml:6: components: must be a mapping, found the list [{"head": {"opset": 20}}]; write {decoder: {}}',),
    ),
    "components as one name": (
        ((GOOD[GOOD.index("components:") : GOOD.index("shape_profiles:\n")], "components: head\n"),),
        ("m.yaml:6: components: must be a mapping, found the string 'head'; write {head: {}}",),
    ),
    "shape profiles as a list, and a target that picks one": (
        ((GOOD[GOOD.index("shape_profiles:\n") : GOOD.index("precisions: [")], "shape_profiles: [small]\n"),),
        ('m.yaml:11: shape_profiles: must be a mapping, found the list ["small"]',),
    ),
    "a shape profile as a list, and a target that picks it": (
        (("{batch: [1, 2, 4], num_boxes: 3}", "[1, 2]"),),
        ("m.yaml:12: shape_profiles.small: must be a mapping, found the list [1, 2]",),
    ),
    "options and tolerances of a precision that is not selected": (
        (("precisions: [fp32, fp16]", "precisions: [fp32]"),),
        (
            "m.yaml:10: components.head.precisions.fp16: has options, but 'precisions' does not select it "
            "(selected: fp32)",
            "m.yaml:24: tolerances.fp16: unknown precision 'fp16' of this manifest; allowed: fp32",
        ),
    ),
    "an empty and a repeated pattern": (
        (('["*norm*"]', '["", "*norm*", "*norm*"]'),),
        (
            "m.yaml:10: components.head.precisions.fp16.keep_fp32[0]: pattern is empty",
            'm.yaml:10: components.head.precisions.fp16.keep_fp32[2]: pattern "*norm*" is listed twice',
        ),
    ),
    "ranges": (
        (("batch: [1, 2, 4], num_boxes: 3", "batch: [4, 2, 1], num_boxes: 0"), ("batch: [1, 4, 16]", "batch: [1, 4]")),
        (
            "m.yaml:12: shape_profiles.small.batch: min <= opt <= max does not hold for [4, 2, 1]",
            "m.yaml:12: shape_profiles.small.num_boxes: opt is 0, but a dimension usually has at least 1",
            "m.yaml:13: shape_profiles.large.batch: must be one integer (fixed) or [min, opt, max], "
            "found the list [1, 4]",
        ),
    ),
    "ranges above what a dimension can have": (
        (("batch: [1, 2, 4], num_boxes: 3", "batch: [1, 2, 2147483648], num_boxes: 2147483648"),),
        (
            "m.yaml:12: shape_profiles.small.batch: max is 2147483648, but a dimension has at most 2147483647",
            "m.yaml:12: shape_profiles.small.num_boxes: max is 2147483648, but a dimension has at most 2147483647",
        ),
    ),
    "two profiles of a target with the same ranges": (
        (
            ("{batch: [1, 4, 16], num_boxes: [1, 8, 20]}", "{num_boxes: [3, 3, 3], batch: [1, 2, 4]}"),
            ("[small]", "[large, small]"),
        ),
        (
            "m.yaml:13: shape_profiles.large: has the same ranges as 'small', and target ada takes both; "
            "change one, or leave it out",
        ),
    ),
    "two profiles that would be the same, were one not broken": (
        (
            ("{batch: [1, 4, 16], num_boxes: [1, 8, 20]}", "{batch: x, num_boxes: 3}"),
            ("batch: [1, 2, 4], num", "batch: y, num"),
            ("[small]", "[large, small]"),
        ),
        (
            "m.yaml:12: shape_profiles.small.batch: must be one integer (fixed) or [min, opt, max], "
            "found the string 'y'",
            "m.yaml:13: shape_profiles.large.batch: must be one integer (fixed) or [min, opt, max], "
            "found the string 'x'",
        ),
    ),
    "an unknown dimension, and so one without a range": (
        (("num_boxes: 3", "num_box: 3"),),
        (
            "m.yaml:12: shape_profiles.small.num_box: unknown dynamic dimension 'num_box' (allowed: batch, num_boxes); "
            "did you mean 'num_boxes'?",
            "m.yaml:12: shape_profiles.small.num_boxes: dynamic dimension 'num_boxes' of head for target ada has no "
            "range; write [min, opt, max], or one number",
        ),
    ),
    "an unknown layout, of which nothing else is judged": (
        (
            ("reference: meta", "layout: v4\nreference: mets"),
            ("  head:", "  haed:"),
            ("{head: {masks", "{haed: {masks"),
        ),
        (
            "m.yaml:3: layout: unknown layout 'v4' of family 'toy'; allowed: v1, v2, v3",
            "m.yaml:4: reference: unknown reference 'mets' (allowed: hf, meta); did you mean 'meta'?",
        ),
    ),
    "what only another layout has": (
        (("reference: meta", "layout: v3\nreference: meta"),),
        (
            "m.yaml:9: components.head: layout 'v3' has no component 'head', but encoder; leave it out, or choose "
            "`layout: v1`",
            "m.yaml:13: shape_profiles.small.num_boxes: layout 'v3' has no dynamic dimension 'num_boxes', but batch; "
            "leave it out, or choose `layout: v1`",
            "m.yaml:14: shape_profiles.large.num_boxes: layout 'v3' has no dynamic dimension 'num_boxes', but batch; "
            "leave it out, or choose `layout: v1`",
            "m.yaml:25: tolerances.fp16.head: layout 'v3' has no component 'head', but encoder; leave it out, or "
            "choose `layout: v1`",
        ),
    ),
    "a target that picks an unknown profile": (
        (("    shape_profiles: [small]", "    shape_profiles: [smal, large, large]"),),
        (
            "m.yaml:20: targets.ada.shape_profiles[0]: unknown shape profile 'smal' (allowed: large, small); "
            "did you mean 'small'?",
            'm.yaml:20: targets.ada.shape_profiles[2]: shape profile "large" is listed twice',
        ),
    ),
    "profiles for a backend that has none, and none for one that needs them": (
        (("{backend: plain}", "{backend: plain, shape_profiles: [large]}"), ("[small]", "[]")),
        (
            "m.yaml:16: targets.cpu.shape_profiles: backend 'plain' uses no shape profiles; leave it out",
            "m.yaml:17: targets.ada: backend 'fast' needs a shape profile with batch, num_boxes",
            "m.yaml:20: targets.ada.shape_profiles: is empty; leave it out to use all profiles",
        ),
    ),
    "an unknown backend": (
        (("backend: fast", "backend: fest"),),
        ("m.yaml:18: targets.ada.backend: unknown backend 'fest' (allowed: fast, plain); did you mean 'fast'?",),
    ),
    "an unknown option": (
        (("    capabilities:", "    capability:"),),
        (
            "m.yaml:17: targets.ada.capabilities: backend 'fast' needs the key 'capabilities'",
            "m.yaml:19: targets.ada.capability: unknown key 'capability' of backend 'fast' "
            "(allowed: allow_unverified, backend, capabilities, level, precisions, shape_profiles); "
            "did you mean 'capabilities'?",
        ),
    ),
    "a licence to publish that is misspelt or no yes or no": (
        (
            ("  cpu: {backend: plain}", "  cpu: {backend: plain, allow_unverifed: true}"),
            ("[small]\nsamples", "[small]\n    allow_unverified: 'yes'\nsamples"),
        ),
        (
            "m.yaml:16: targets.cpu.allow_unverifed: unknown key 'allow_unverifed' of backend 'plain' "
            "(allowed: allow_unverified, backend, precisions, shape_profiles); did you mean 'allow_unverified'?",
            "m.yaml:21: targets.ada.allow_unverified: must be true or false, found the string 'yes'",
        ),
    ),
    "an option given twice": (
        (('["8.9"]', '["8.9", "8.9"]'),),
        ('m.yaml:19: targets.ada.capabilities[1]: value "8.9" is listed twice',),
    ),
    "what no machine can build": (
        (('["8.9"]', '["9.0"]'),),
        ("m.yaml:17: targets.ada: 9.0 cannot be built; this release takes 7.5, 8.9",),
    ),
    "what no machine can build in one of the precisions": (
        (('["8.9"]', '["7.5"]'),),
        ("m.yaml:17: targets.ada: no fp32 on 7.5",),
    ),
    "names that cannot be file names": (
        (("  ada:", "  Ada 1:"), ("  large:", "  ../large:")),
        (
            "m.yaml:13: shape_profiles.../large: profile name '../large' must match [a-z0-9][a-z0-9_-]* "
            "(it becomes part of file names)",
            "m.yaml:17: targets.Ada 1: target name 'Ada 1' must match [a-z0-9][a-z0-9_-]* "
            "(it becomes part of file names)",
        ),
    ),
    "samples": (
        (
            ("text: red circle", "text: ' '"),
            ('boxes: "pos:40,40,30,30;neg: 90,80.5,20,20"}', 'boxes: "pos:1,2,3;top:1,2,3,4"}\n  - {image: scene.png}'),
        ),
        (
            "m.yaml:22: samples[0].text: is empty; write a noun phrase, or leave the key out",
            "m.yaml:23: samples[1].boxes: box 'pos:1,2,3' is not 'pos:x,y,w,h' or 'neg:x,y,w,h' "
            "(pixels, joined by ';')",
            "m.yaml:24: samples[2]: needs a prompt: text, boxes or both",
        ),
    ),
    "a box without area": (
        (("pos:40,40,30,30", "pos:40,40,0,30"),),
        ("m.yaml:23: samples[1].boxes: box 'pos:40,40,0,30' has no area; width and height must be above 0",),
    ),
    "a sample given twice": (
        (("  - {image: scene.png, text: red circle}", "  - {image: scene.png, text: a}\n" * 2),),
        ("m.yaml:23: samples[1]: is the same as samples[0]",),
    ),
    "tolerances of unknown things": (
        (("{masks: {cosine: 0.99, std_ratio: [0.9, 1.1]}}", "{mask: {cosine: 0.99}, masks: {cosin: 1}}"),),
        (
            "m.yaml:24: tolerances.fp16.head.mask: unknown output 'mask' of head (allowed: masks, valid); "
            "did you mean 'masks'?",
            "m.yaml:24: tolerances.fp16.head.masks.cosin: unknown metric 'cosin' (allowed: cosine, max_abs_over_range, "
            "max_abs_over_std, mismatches, rows, std_ratio); did you mean 'cosine'?",
        ),
    ),
    "a key of task that is misspelt": (
        (("tolerances:", "task: {score_treshold: 0.4}\ntolerances:"),),
        (
            "m.yaml:24: task.score_treshold: unknown key 'score_treshold' (allowed: score_threshold); "
            "did you mean 'score_threshold'?",
        ),
    ),
    "a score threshold that no score reaches": (
        (("tolerances:", "task: {score_threshold: 50}\ntolerances:"),),
        ("m.yaml:24: task.score_threshold: must be at most 1.0, found the number 50",),
    ),
    "a score threshold that is no number": (
        (("tolerances:", "task: {score_threshold: high}\ntolerances:"),),
        ("m.yaml:24: task.score_threshold: must be a number, found the string 'high'",),
    ),
    "tolerances of the pipeline of a family that finds no instances": (
        (("{head: {masks: {cosine: 0.99, std_ratio: [0.9, 1.1]}}}", "{pipeline: {instances: {count: 1}}}"),),
        ("m.yaml:24: tolerances.fp16.pipeline: unknown component 'pipeline' of this manifest; allowed: encoder, head",),
    ),
    "tolerances of a component that is not built": (
        (("{fp16: {head: {masks", "{fp16: {neck: {masks"),),
        ("m.yaml:24: tolerances.fp16.neck: unknown component 'neck' of this manifest; allowed: encoder, head",),
    ),
    "thresholds that mean nothing": (
        (
            (
                "{masks: {cosine: 0.99, std_ratio: [0.9, 1.1]}}",
                "{masks: {cosine: [0.9, 1], std_ratio: 1, mismatches: 1, nonfinite: 3, max_abs_over_std: -1,"
                " max_abs_over_range: x}, valid: {cosine: 0.9}}",
            ),
        ),
        (
            "m.yaml:24: tolerances.fp16.head.masks.max_abs_over_range: must be a number or [low, high], "
            "found the string 'x'",
            "m.yaml:24: tolerances.fp16.head.masks.cosine: cosine takes one number, found [0.9, 1.0]",
            "m.yaml:24: tolerances.fp16.head.masks.std_ratio: std_ratio takes a pair such as [0.98, 1.02], found 1.0",
            "m.yaml:24: tolerances.fp16.head.masks.mismatches: masks is float32 and never compared by equality",
            "m.yaml:24: tolerances.fp16.head.masks.nonfinite: NaN and Inf always fail; leave this tolerance out",
            "m.yaml:24: tolerances.fp16.head.masks.max_abs_over_std: max_abs_over_std is at least 0, found -1.0",
            "m.yaml:24: tolerances.fp16.head.valid.cosine: valid is bool and compared by equality: "
            "it takes only 'mismatches'",
        ),
    ),
    "thresholds that their metric cannot reach": (
        (
            (
                "{cosine: 0.99, std_ratio: [0.9, 1.1]}",
                "{cosine: 1.5, std_ratio: [-0.1, 1.1], max_abs_over_range: -1e-9}",
            ),
        ),
        (
            "m.yaml:24: tolerances.fp16.head.masks.cosine: cosine is at least 0 and at most 1, found 1.5",
            "m.yaml:24: tolerances.fp16.head.masks.std_ratio: std_ratio is at least 0, found [-0.1, 1.1]",
            "m.yaml:24: tolerances.fp16.head.masks.max_abs_over_range: max_abs_over_range is at least 0, found -1e-09",
        ),
    ),
    "a duplicate key and what is wrong besides": (
        (("opset: 20", "opset: 20\nfamily: other"), ("reference: meta", "reference: mata")),
        (
            "m.yaml:3: reference: unknown reference 'mata' (allowed: hf, meta); did you mean 'meta'?",
            "m.yaml:6: family: key 'family' stands on line 1 already; keep one",
        ),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_every_problem_is_named_with_its_line(project: Path, case: str) -> None:
    edits, expected = WRONG[case]
    assert problems(project, edited(*edits)) == tuple(p.replace("{here}", str(Path.cwd())) for p in expected)


def test_the_message_is_all_problems_one_a_line(project: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        loaded(project, edited(("family: toy", "family: 1"), ("opset: 20", "opset: 2")))
    assert str(caught.value).splitlines() == [
        "m.yaml:1: family: must be a string, found the number 1; put it in quotes",
        "m.yaml:5: opset: must be at least 18, found the number 2",
    ]


def test_an_unknown_manifest_name_lists_the_others(project: Path) -> None:
    Path("sam3_mini.yaml").write_text(GOOD)
    with pytest.raises(
        ManifestError, match=r"^sam3_min\.yaml: unknown manifest 'sam3_min' \(allowed: sam3_mini\); did"
    ):
        load("sam3_min", project)
    with pytest.raises(ManifestError, match=r"^sam3_min\.yaml: no such file 'sam3_min.yaml'; did you mean 'sam3_mini"):
        load("./sam3_min.yaml", project)


def test_a_file_that_only_the_projects_manifests_have_is_to_be_given_by_name(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("sam3_mini.yaml").write_text(GOOD)
    monkeypatch.chdir(project)
    for path in ("sam3_mini.yaml", "sam3_mini.yml", "nowhere/sam3_mini.yaml"):
        with pytest.raises(ManifestError) as caught:
            load(path, project)
        assert caught.value.problems == (
            f"{path}: no such file {Path(path).name!r} here; for manifests/sam3_mini.yaml write manifest=sam3_mini",
        )


def test_a_folder_is_no_manifest(project: Path) -> None:
    Path("sub.yaml").mkdir()
    for path in ("sub.yaml", "./sub.yaml", "../manifests/"):
        with pytest.raises(ManifestError, match=f": '{re.escape(path)}' is a folder, a file is needed$"):
            load(path, project)


def test_a_manifest_outside_the_current_folder_is_named_by_its_whole_path(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    Path("m.yaml").write_text("family: 1")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(ManifestError) as caught:
        load("m", project)
    assert all(p.startswith(f"{project}/manifests/m.yaml:1: ") for p in caught.value.problems)


def test_a_manifest_name_becomes_a_folder_so_it_is_restricted(project: Path) -> None:
    Path("My Manifest.yaml").write_text(GOOD)
    with pytest.raises(ManifestError, match=r"a manifest's file name must match \[a-z0-9\]"):
        load("My Manifest.yaml", project)


# ------------------------------------------------------------------ extends


def test_extending_merges_mappings_replaces_lists_and_removes_with_null(project: Path) -> None:
    Path("base.yaml").write_text(GOOD)
    manifest = loaded(
        project,
        """\
extends: base.yaml
components: {head: {opset: null, precisions: {fp16: {keep_fp32: ["*softmax*"]}}}}
shape_profiles: {large: null, small: {batch: 2}}
targets: {cpu: null, ada: {level: 5}}
tolerances: null
""",
    )
    assert manifest.name == "m"
    assert [f.path.name for f in manifest.files] == ["m.yaml", "base.yaml"]
    assert list(manifest.components) == ["encoder", "head"]
    assert manifest.components["head"].opset is None
    assert manifest.components["head"].precisions["fp16"].keep_fp32 == ("*softmax*",)
    assert manifest.shape_profiles == {"small": {"batch": (2, 2, 2), "num_boxes": (3, 3, 3)}}
    assert manifest.targets.keys() == {"ada"}
    assert manifest.targets["ada"].options == {"capabilities": ["8.9"], "level": 5}
    assert manifest.tolerances == {}


def test_a_path_is_relative_to_the_file_that_it_was_written_in(project: Path) -> None:
    Path("sub").mkdir()
    Path("base.yaml").write_text(GOOD)
    Path("sub/tokens.json").write_text("")
    Path("sub/n.yaml").write_text("extends: ../base.yaml\ntokenizer: tokens.json\n")
    manifest = load("sub/n.yaml", project)
    assert manifest.tokenizer.samefile("sub/tokens.json")
    assert manifest.samples[0].pictures[0].samefile("scene.png")


def test_an_error_names_the_file_and_line_that_the_value_came_from(project: Path) -> None:
    Path("base.yaml").write_text(edited(("opset: 19", "opset: 99"), ("reference: meta", "reference: mata")))
    Path("middle.yaml").write_text("extends: base.yaml\n\nopset: 7\n")
    assert problems(project, "extends: middle.yaml\nprecisions: [fp16, fp8]\n") == (
        "m.yaml:2: precisions[1]: unknown precision 'fp8'; allowed: fp16, fp32",
        "middle.yaml:3: opset: must be at least 18, found the number 7",
        "base.yaml:3: reference: unknown reference 'mata' (allowed: hf, meta); did you mean 'meta'?",
        "base.yaml:9: components.head.opset: must be at most 20, found the number 99",
    )


def test_what_cannot_be_read_is_not_taken_for_null(project: Path) -> None:
    Path("base.yaml").write_text(GOOD)
    over = "extends: base.yaml\ntolerances: {fp16: {head: {masks: {max_abs_over_std: .inf, cosine: .nan}}}}\n"
    assert problems(project, over) == tuple(
        f"m.yaml:2: tolerances.fp16.head.masks.{metric}: '{value}' is not a finite number; write one in decimal digits"
        for metric, value in (("max_abs_over_std", ".inf"), ("cosine", ".nan"))
    )


def test_removing_what_is_not_there_is_an_error(project: Path) -> None:
    Path("base.yaml").write_text(GOOD)
    assert problems(project, "extends: base.yaml\ntargets: {adda: null}\n") == (
        "m.yaml:2: targets.adda: null removes a key of the extended manifest, which has no 'adda' here; "
        "did you mean 'ada'?",
    )


# ------------------------------------------------------------------ narrowing


def narrowed(project: Path, over: str, **others: str) -> Manifest:
    """Load a manifest of the lines `over` that extends GOOD, or what one of `others` is called that does."""
    Path("base.yaml").write_text(GOOD)
    for name, text in others.items():
        Path(f"{name}.yaml").write_text(f"extends: base.yaml\n{text}\n")
    return loaded(project, f"extends: {next(iter(others), 'base')}.yaml\n{over}\n")


def test_a_list_selects_from_what_is_extended_in_its_own_order_with_all_options(project: Path) -> None:
    whole = narrowed(project, "")
    manifest = narrowed(project, "components: [head]\ntargets: [ada, cpu]\nshape_profiles: [large, small]")
    assert dict(manifest.components) == {"head": whole.components["head"]}
    assert list(manifest.targets.items()) == [("ada", whole.targets["ada"]), ("cpu", manifest.targets["cpu"])]
    assert list(manifest.shape_profiles) == ["large", "small"]
    assert manifest.targets["cpu"].shape_profiles == ("large", "small"), "all of them, in the order of the manifest"
    assert manifest.tolerances == whole.tolerances


def test_options_and_tolerances_of_precisions_that_are_not_selected_are_not_inherited(project: Path) -> None:
    manifest = narrowed(project, "precisions: [fp32]")
    assert (manifest.precisions, manifest.components["head"].precisions, manifest.tolerances) == (("fp32",), {}, {})
    assert manifest.components["head"].opset == 19, "which belongs to the component and stays"


def test_tolerances_of_the_baseline_are_inherited_where_it_is_not_selected(project: Path) -> None:
    Path("base.yaml").write_text(edited(("{fp16: {head", "{fp32: {head"), ("{fp16: {keep", "{fp32: {keep")))
    manifest = loaded(project, "extends: base.yaml\nprecisions: [fp16]\n")
    assert (list(manifest.tolerances), manifest.components["head"].precisions) == (["fp32"], {})


@pytest.mark.parametrize("how", ["components: [encoder]", "components: {head: null}"])
def test_tolerances_of_components_that_are_not_selected_are_not_inherited(project: Path, how: str) -> None:
    manifest = narrowed(project, how)
    assert list(manifest.components) == ["encoder"]
    assert manifest.tolerances == {"fp16": {}}


@pytest.mark.parametrize("how", ["shape_profiles: [large]", "shape_profiles: {small: null}"])
def test_a_target_picks_no_profile_that_is_not_selected(project: Path, how: str) -> None:
    assert narrowed(project, how).targets["ada"].shape_profiles == ("large",), "nothing of its pick is left: all"
    both = "targets: {ada: {shape_profiles: [small, large]}}"
    assert narrowed(project, how, middle=both).targets["ada"].shape_profiles == ("large",)


def test_what_people_wrote_null_for_before_they_could_select_may_stay_null(project: Path) -> None:
    over = "precisions: [fp32]\ncomponents: {head: {precisions: {fp16: null}}}\ntolerances: {fp16: null}"
    assert narrowed(project, over).tolerances == {}


NARROWED_WRONGLY = {
    "options of a precision that the same file does not select": (
        "precisions: [fp32]\ncomponents: {head: {precisions: {fp16: {keep_fp32: [a]}}}}",
        "m.yaml:3: components.head.precisions.fp16: has options, but 'precisions' does not select it (selected: fp32)",
    ),
    "a tolerance of a precision that the same file does not select": (
        "precisions: [fp32]\ntolerances: {fp16: {head: {masks: {cosine: 0.9}}}}",
        "m.yaml:3: tolerances.fp16: unknown precision 'fp16' of this manifest; allowed: fp32",
    ),
    "a tolerance of a component that the same file does not select": (
        "components: [encoder]\ntolerances: {fp16: {head: {masks: {cosine: 0.9}}}}",
        "m.yaml:3: tolerances.fp16.head: unknown component 'head' of this manifest; allowed: encoder",
    ),
    "a pick of a profile that the same file does not select": (
        "shape_profiles: [large]\ntargets: {ada: {shape_profiles: [small]}}",
        "m.yaml:3: targets.ada.shape_profiles[0]: unknown shape profile 'small'; allowed: large",
    ),
    "components that are not there": (
        "components: [haed, head, head]",
        "m.yaml:2: components[0]: unknown component 'haed' of the extended manifest, from which a list selects "
        "(allowed: encoder, head); did you mean 'head'?",
        'm.yaml:2: components[2]: component "head" is listed twice',
    ),
    "a target that is not there, of which nothing else is judged": (
        "targets: [blackwell]",
        "m.yaml:2: targets[0]: unknown target 'blackwell' of the extended manifest, from which a list selects; "
        "allowed: ada, cpu",
    ),
    "options in a list": (
        "components: [head: {opset: 20}]",
        "m.yaml:2: components[0]: must be the name of a component of the extended manifest, found a mapping; "
        "to give options, write a mapping and no list",
    ),
    "nothing": ("targets: []", "m.yaml:2: targets: is empty; list at least one"),
    "a target that is in no list": (
        "targets: cpu",
        "m.yaml:2: targets: must be a mapping, or a list that selects from the extended manifest, found the string "
        "'cpu'; write [cpu]",
    ),
    "a component that is in no list": (
        "components: head",
        "m.yaml:2: components: must be a mapping, or a list that selects from the extended manifest, found the string "
        "'head'; write [head]",
    ),
    "no name at all in the place of a list": (
        "shape_profiles: 4",
        "m.yaml:2: shape_profiles: must be a mapping, or a list that selects from the extended manifest, found the "
        "number 4; write [small, large]",
    ),
    "what the same file's layout does not have": (
        "layout: v3\nshape_profiles: {small: {num_boxes: 4}}\ncomponents: {head: {opset: 18}}",
        "m.yaml:3: shape_profiles.small.num_boxes: layout 'v3' has no dynamic dimension 'num_boxes', but batch; "
        "leave it out, or choose `layout: v1`",
        "m.yaml:4: components.head: layout 'v3' has no component 'head', but encoder; leave it out, or choose "
        "`layout: v1`",
    ),
    "an option that the same file's backend does not have": (
        "targets: {ada: {backend: plain, level: 4, shape_profiles: [small]}}",
        "m.yaml:2: targets.ada.shape_profiles: backend 'plain' uses no shape profiles; leave it out",
        "m.yaml:2: targets.ada.level: unknown key 'level' of backend 'plain'; allowed: allow_unverified, backend, "
        "precisions, shape_profiles",
    ),
    "two sources of a checkpoint": (
        "checkpoint: {path: bare.safetensors, hub: a/b}",
        "m.yaml:2: checkpoint: takes exactly one of 'random', 'path', 'hub' and 'url', found path and hub",
    ),
    "a revision of what has none": (
        "checkpoint: {path: bare.safetensors, config: toy.json, revision: r}",
        "m.yaml:2: checkpoint.revision: is allowed beside 'hub' only; 'path' has no revisions",
    ),
}


@pytest.mark.parametrize("case", NARROWED_WRONGLY)
def test_a_file_that_contradicts_itself_or_selects_what_is_not_there_is_refused(project: Path, case: str) -> None:
    over, *expected = NARROWED_WRONGLY[case]
    with pytest.raises(ManifestError) as caught:
        narrowed(project, over)
    assert caught.value.problems == tuple(expected)


def test_names_that_mean_nothing_are_mistakes_whoever_wrote_them(project: Path) -> None:
    Path("base.yaml").write_text(edited(("{fp16: {keep", "{fp61: {keep"), ("{fp16: {head: {m", "{fp16: {haed: {m")))
    assert problems(project, "extends: base.yaml\nprecisions: [fp32, fp16]\ncomponents: [head]\n") == (
        "base.yaml:10: components.head.precisions.fp61: unknown precision 'fp61' (allowed: fp16, fp32); "
        "did you mean 'fp16'?",
        "base.yaml:24: tolerances.fp16.haed: unknown component 'haed' of this manifest (allowed: head); "
        "did you mean 'head'?",
    )
    Path("base.yaml").write_text(edited(("num_boxes: 3", "num_box: 3"), ('8.9"]', '8.9"]\n    levle: 2')))
    found = problems(project, "extends: base.yaml\nlayout: v3\ntargets: {ada: {backend: plain}}\n")
    assert list(found) == [
        "base.yaml:12: shape_profiles.small.num_box: unknown dynamic dimension 'num_box'; allowed: batch",
        "base.yaml:20: targets.ada.levle: unknown key 'levle' of backend 'plain'; allowed: allow_unverified, backend, "
        "precisions, shape_profiles",
    ]


def test_narrowing_reaches_through_a_file_in_between(project: Path) -> None:
    for over, middle in (("precisions: [fp32]", "opset: 18"), ("opset: 18", "precisions: [fp32]")):
        manifest = narrowed(project, over, middle=middle)
        assert (manifest.opset, manifest.components["head"].precisions, manifest.tolerances) == (18, {}, {})
    for over, middle in (("components: [encoder]", "opset: 18"), ("opset: 18", "components: [encoder]")):
        assert narrowed(project, over, middle=middle).tolerances == {"fp16": {}}


def test_who_selects_again_what_a_file_in_between_left_out_gets_its_options_back(project: Path) -> None:
    manifest = narrowed(project, "precisions: [fp16]", middle="precisions: [fp32]")
    assert manifest.components["head"].precisions["fp16"].keep_fp32 == ("*norm*",), "or FP16 would lose them unseen"
    assert manifest.tolerances == loaded(project, GOOD).tolerances


def test_options_for_what_an_extended_file_left_out_are_a_mistake(project: Path) -> None:
    tolerance = "tolerances: {fp16: {head: {masks: {cosine: 0.9}}}}"
    with pytest.raises(ManifestError, match=r"^m\.yaml:2: tolerances\.fp16: unknown precision 'fp16' of this manifest"):
        narrowed(project, tolerance, middle="precisions: [fp32]")
    with pytest.raises(ManifestError, match=r"^m\.yaml:2: tolerances\.fp16\.head: unknown component 'head' of this"):
        narrowed(project, tolerance, middle="components: {head: null}")


@pytest.mark.parametrize("how", ["layout: v3", "layout: v3\ncomponents: [encoder]"])
def test_what_only_another_layout_has_is_not_inherited(project: Path, how: str) -> None:
    for manifest in (narrowed(project, how), narrowed(project, "opset: 18", middle=how)):
        assert (manifest.layout, list(manifest.components), manifest.tolerances) == ("v3", ["encoder"], {"fp16": {}})
        assert manifest.shape_profiles == {"small": {"batch": (1, 2, 4)}, "large": {"batch": (1, 4, 16)}}
    back = narrowed(project, "layout: v1", middle="layout: v3")
    whole = narrowed(project, "")
    assert (back.shape_profiles, back.tolerances) == (whole.shape_profiles, whole.tolerances)


def test_a_layout_is_left_by_null_too(project: Path) -> None:
    v2 = edited(
        ("opset: 20", "opset: 20\nlayout: v2"),
        ("  encoder: {patches: [fold]}\n", ""),
        ("s: 3}", "s: 3, num_points: 9}"),
    )
    Path("base.yaml").write_text(v2)
    assert loaded(project, "extends: base.yaml\n").shape_profiles["small"]["num_points"] == (9, 9, 9)
    manifest = loaded(project, "extends: base.yaml\nlayout: null\n")
    assert (manifest.layout, list(manifest.shape_profiles["small"])) == ("v1", ["batch", "num_boxes"])


def test_nulls_for_what_a_layout_does_not_have_may_stay(project: Path) -> None:
    nulls = "components: {head: null}\nshape_profiles: {small: {num_boxes: null}, large: {num_boxes: null}}"
    manifest, short = narrowed(project, f"layout: v3\n{nulls}"), narrowed(project, "layout: v3")
    assert replace(manifest, files=()) == replace(short, files=())


def test_a_target_of_another_backend_inherits_only_what_that_one_takes(project: Path) -> None:
    ada = narrowed(project, "targets: {ada: {backend: plain}}", middle="targets: {ada: {allow_unverified: true}}")
    assert ada.targets["ada"] == Target("plain", ("small", "large"), {}, ("fp32", "fp16"), allow_unverified=True)
    back = narrowed(project, "targets: {ada: {backend: fast}}", middle="targets: {ada: {backend: plain}}")
    assert back.targets["ada"] == narrowed(project, "").targets["ada"]


def test_a_target_takes_the_precisions_that_it_lists_in_the_manifests_order_or_all(project: Path) -> None:
    found = narrowed(project, "targets: {ada: {precisions: [fp16, fp32]}, cpu: {precisions: [fp16]}}").targets
    assert (found["ada"].precisions, found["cpu"].precisions) == (("fp32", "fp16"), ("fp16",))
    assert {target.precisions for target in narrowed(project, "").targets.values()} == {("fp32", "fp16")}


def test_what_no_machine_can_build_is_no_error_for_a_target_that_leaves_it_out(project: Path) -> None:
    old = "{backend: fast, capabilities: ['7.5']"
    with pytest.raises(ManifestError, match=r"targets\.old: no fp32 on 7\.5"):
        narrowed(project, f"targets: {{old: {old}}}}}")
    assert narrowed(project, f"targets: {{old: {old}, precisions: [fp16]}}}}").targets["old"].precisions == ("fp16",)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("[fp16, fp61]", "targets.ada.precisions[1]: unknown precision 'fp61' (allowed: fp16, fp32)"),
        ("[fp16, fp16]", 'targets.ada.precisions[1]: precision "fp16" is listed twice'),
        ("[]", "targets.ada.precisions: is empty; leave it out to build all precisions"),
        (
            "[fp16, fp32]",
            "targets.ada.precisions[0]: 'fp16' is none that 'precisions' selects (selected: fp32); add it there",
        ),
    ],
)
def test_precisions_of_a_target_are_some_of_the_manifests(project: Path, listed: str, message: str) -> None:
    selected = "[fp32]" if "none that" in message else "[fp32, fp16]"
    with pytest.raises(ManifestError) as caught:
        narrowed(project, f"precisions: {selected}\ntargets: {{ada: {{precisions: {listed}}}}}")
    (problem,) = caught.value.problems
    assert message in problem


def test_a_selection_of_precisions_takes_the_others_out_of_targets_and_a_target_that_is_left_with_none(
    project: Path,
) -> None:
    middle = "targets: {ada: {precisions: [fp32, fp16]}, low: {backend: plain, precisions: [fp16]}}"
    manifest = narrowed(project, "precisions: [fp32]", middle=middle)
    assert {name: target.precisions for name, target in manifest.targets.items()} == dict.fromkeys(
        narrowed(project, "").targets, ("fp32",)
    )
    assert "low" in narrowed(project, "", middle=middle).targets


def checkpoint(project: Path, base: str, over: str, **others: str) -> Checkpoint:
    """Load a manifest with the checkpoint `over` that extends one with `base`, or what one of `others` is called."""
    Path("own").mkdir(exist_ok=True)
    for name in ("own/config.json", "own/model.safetensors", "two.pt"):
        Path(name).write_bytes(b"x")
    Path("base.yaml").write_text(edited((RANDOM, base)))
    for name, text in others.items():
        Path(f"{name}.yaml").write_text(f"extends: base.yaml\ncheckpoint: {text}\n")
    return loaded(project, f"extends: {next(iter(others), 'base')}.yaml\ncheckpoint: {over}\n").checkpoint


HUB = "{hub: a/b, revision: r, weights: ema, config: toy.json, licence: toy.json}"


URL = f"{{url: 'https://example.org/toy.pt', sha256: {DIGEST}, weights: ema, licence: toy.json}}"


@pytest.mark.parametrize("base", [RANDOM, HUB, URL, "{path: two.pt, weights: ema, config: toy.json}"])
@pytest.mark.parametrize(
    "over",
    [
        "{random: {seed: 1, config: toy.json}}",
        "{hub: c/d}",
        "{path: own}",
        f"{{url: 'https://example.org/own.safetensors', sha256: {DIGEST}, config: toy.json}}",
    ],
)
def test_another_source_of_a_checkpoint_replaces_the_inherited_one(project: Path, base: str, over: str) -> None:
    found = checkpoint(project, base, over)
    assert found == checkpoint(project, base, "{}", middle=over) == loaded(project, edited((RANDOM, over))).checkpoint


@pytest.mark.parametrize("over", ["{path: own}", "{hub: null, path: own}", "{hub: null, revision: null, path: own}"])
def test_an_inherited_source_may_be_nulled(project: Path, over: str) -> None:
    own = Path("own").absolute()
    files = {"config": own / "config.json", "weights": own / "model.safetensors"}
    assert checkpoint(project, "{hub: a/b, revision: r}", over) == Checkpoint(None, None, own, None, files)


@pytest.mark.parametrize("base", [HUB, "{path: two.pt, config: toy.json}"])
def test_a_config_is_inherited_by_weights_that_have_none_beside_them(project: Path, base: str) -> None:
    assert checkpoint(project, base, "{path: bare.safetensors}").config == Path("toy.json").absolute()
    over = f"{{url: 'https://example.org/bare.safetensors', sha256: {DIGEST}}}"
    assert checkpoint(project, base, over).config == Path("toy.json").absolute()


def test_a_digest_belongs_to_its_url(project: Path) -> None:
    with pytest.raises(ManifestError, match="required key 'sha256' is missing beside 'url'"):
        checkpoint(project, URL, "{url: 'https://example.org/other.pt'}")


@pytest.mark.parametrize("over", ["{hub: a/b}", "{config: toy.json}"])
def test_the_same_source_keeps_what_belongs_to_it(project: Path, over: str) -> None:
    assert checkpoint(project, HUB, over) == loaded(project, edited((RANDOM, HUB))).checkpoint
    back = checkpoint(project, HUB, "{hub: a/b}", middle="{path: own}")
    assert back.hub == Hub("a/b", "r"), "or a commit would become a branch unseen"


# ------------------------------------------------------------------ a home folder


def test_a_tilde_is_the_home_folder_in_every_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = project / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("toy.json", "toy_tokenizer.json", "scene.png", "w.safetensors"):
        (home / name).write_bytes(b"x")
    (home / "base.yaml").write_text(
        edited(
            ("config: toy.json", "config: ~/toy.json"),
            ("tokenizer: toy_tokenizer.json", "tokenizer: ~/toy_tokenizer.json"),
            ("{image: scene.png, text", "{image: ~/scene.png, text"),
        )
    )
    over = "extends: ~/base.yaml\ncheckpoint: {random: null, path: ~/w.safetensors, config: ~/toy.json}\n"
    (home / "n.yaml").write_text(over)
    drawn, manifest = load("~/base.yaml", project), load("~/n.yaml", project)
    assert manifest.path == home / "n.yaml"
    assert drawn.checkpoint.files == {"config": home / "toy.json"}
    assert manifest.checkpoint.files == {"config": home / "toy.json", "weights": home / "w.safetensors"}
    assert manifest.tokenizer == home / "toy_tokenizer.json"
    assert manifest.samples[0].pictures[0] == home / "scene.png"


def test_a_home_that_nobody_has_is_no_file(project: Path) -> None:
    assert problems(project, edited(("toy_tokenizer.json", "~nobody-has-this-name"))) == (
        "m.yaml:4: tokenizer: no such file '~nobody-has-this-name'; known: "
        "bare.safetensors, m.yaml, scene.png, sharded, toy.json, toy_tokenizer.json",
    )
    with pytest.raises(ManifestError, match=r"no such file 'x\.yaml'"):
        load("~nobody-has-this-name/x.yaml", project)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("m.yaml", "m.yaml:1: extends: a manifest cannot extend itself: m.yaml -> m.yaml"),
        ("loop.yaml", "loop.yaml:1: extends: a manifest cannot extend itself: m.yaml -> loop.yaml -> m.yaml"),
        ('"a\\0b"', "m.yaml:1: extends: no such file 'a\\x00b'; known: base.yaml, loop.yaml, m.yaml"),
        ("../manifests", "m.yaml:1: extends: '../manifests' is a folder, a file is needed"),
        ("/dev/null", "m.yaml:1: extends: '/dev/null' is a device, a file is needed"),
        ("base", "m.yaml:1: extends: no such file 'base'; did you mean 'base.yaml'?"),
        ("[base.yaml]", "m.yaml:1: extends: must be the path of another manifest, relative to this file"),
    ],
)
def test_extends_must_name_another_manifest(project: Path, named: str, expected: str) -> None:
    Path("base.yaml").write_text(GOOD)
    Path("loop.yaml").write_text("extends: m.yaml\n")
    assert problems(project, f"extends: {named}\n") == (expected,)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    source = extends.read(tmp_path)
    assert (source.root, source.files) == (None, ())
    assert [(p.place.line, p.text) for p in source.problems] == [(0, "cannot be read: Is a directory")]
