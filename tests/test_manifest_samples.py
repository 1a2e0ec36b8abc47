"""Samples of a manifest: which pipeline takes them, what is wrong with them, and what a clip is. A made-up family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sam3_build import registry
from sam3_build.digest import DigestCache
from sam3_build.documents import value_of
from sam3_build.errors import ManifestError
from sam3_build.manifest import cache
from sam3_build.manifest import load as checking
from sam3_build.manifest.load import load
from sam3_build.manifest.samples import as_params
from sam3_build.manifest.types import Sample
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.plan.make import make_plan
from sam3_build.spec import ComponentSpec, Layout, ModelFamily, Pipeline, Step, TensorSpec


@dataclass(frozen=True)
class Words:
    text: str | None = None


@dataclass(frozen=True)
class Places:
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    mask: str | None = None


@dataclass(frozen=True)
class OnFrame:
    frame: int
    object: int | None = None
    points: tuple[Point, ...] = ()
    mask: str | None = None
    remove: int | None = None


@dataclass(frozen=True)
class Clip:
    prompts: tuple[OnFrame, ...] = ()


@dataclass(frozen=True)
class WordOnFrame:
    frame: int
    object: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class WordClip:
    prompts: tuple[WordOnFrame, ...] = ()


NET = ComponentSpec(
    "net", (TensorSpec("x", "float32", ("batch",)),), (TensorSpec("y", "float32", ("batch",)),), ("net",)
)


def pipeline(name: str, prompts: type) -> Pipeline:
    return Pipeline(name, prompts, ("x",), (Step("net"),))


def family(name: str, **layouts: tuple[Pipeline, ...]) -> ModelFamily:
    return ModelFamily(
        name=name,
        layouts={layout: Layout((NET,), pipelines, ("batch",)) for layout, pipelines in layouts.items()},
        references={"meta": "Meta's code"},
        static_dims=lambda config: {},
        largest_tensor=lambda component, config: 4,
        tokenizer="anywhere",
    )


FAMILIES = {
    "blink": family(
        "blink",
        v1=(pipeline("words", Words), pipeline("places", Places), pipeline("clip", Clip)),
        v2=(pipeline("words", Words),),
    ),
    "narrator": family("narrator", v1=(pipeline("story", WordClip),)),
}

MANIFEST = """\
family: blink
layout: {layout}
checkpoint: {{random: {{seed: 0, config: c.json}}}}
reference: meta
tokenizer: t.json
opset: 20
components: {{net: {{}}}}
precisions: [fp32]
targets: {{cpu: {{backend: onnxruntime}}}}
samples:
{samples}
"""


@pytest.fixture
def load_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Sample, ...]]:
    """Return a function that loads a manifest with these samples, beside scene.png and the folder clip of 3 frames."""
    real = registry.names
    monkeypatch.setattr(registry, "names", lambda kind: tuple(FAMILIES) if kind == "families" else real(kind))
    monkeypatch.setattr(registry, "family", FAMILIES.__getitem__)
    monkeypatch.chdir(tmp_path)
    for name in ("c.json", "t.json", "scene.png", "mask.png", "film.mp4"):
        Path(name).write_bytes(b"{}")
    for folder, names in (("clip", ("b.jpg", "a.JPG", "c.png", "notes.txt")), ("empty", ("notes.txt",))):
        Path(folder).mkdir()
        for name in names:
            Path(folder, name).write_bytes(name.encode())

    def load_them(*samples: str, layout: str = "v1") -> tuple[Sample, ...]:
        listed = "\n".join(f"  - {{{sample}}}" for sample in samples)
        Path("m.yaml").write_text(MANIFEST.format(layout=layout, samples=listed))
        return load("m.yaml", tmp_path).samples

    return load_them


Load = Callable[..., tuple[Sample, ...]]


# ------------------------------------------------------------------ what is taken


def test_the_first_pipeline_that_takes_all_keys_takes_a_sample(load_samples: Load) -> None:
    words, places, clip = load_samples(
        "image: scene.png, text: a cat",
        "image: scene.png, points: 'pos:1,2; neg:3.5,4', mask: mask.png",
        "video: clip, frames: 2, prompts: [{frame: 0, object: 1, points: 'pos:1,2'}, {frame: 1, remove: 1}]",
    )
    here = Path.cwd()
    assert (words.pipeline, words.pictures, words.prompts) == ("words", (here / "scene.png",), {"text": "a cat"})
    assert value_of(Places, places.prompts) == Places(points=(Point(1, 1, 2), Point(0, 3.5, 4)), mask="mask0")
    assert (places.pipeline, places.masks, places.files) == (
        "places",
        {"mask0": here / "mask.png"},
        (here / "scene.png", here / "mask.png"),
    )
    assert (clip.pipeline, clip.video, clip.frames, clip.reverse) == ("clip", here / "clip", 2, False)
    assert [path.name for path in clip.pictures] == ["a.JPG", "b.jpg"], "the first ones, in the order of their names"
    assert value_of(Clip, clip.prompts) == Clip(
        (OnFrame(0, 1, (Point(1, 1, 2),)), OnFrame(1, remove=1)),
    )


def test_a_clip_may_be_a_file_and_run_backwards(load_samples: Load) -> None:
    (clip,) = load_samples(
        "video: film.mp4, frames: 9, reverse: true, prompts: [{frame: 8, object: 0, mask: mask.png}]"
    )
    assert (clip.pictures, clip.frames, clip.reverse) == ((Path("film.mp4").absolute(),), 9, True)
    assert clip.masks == {"mask0": Path("mask.png").absolute()}


def test_stages_get_roles_of_files_and_each_file_once(load_samples: Load) -> None:
    samples = load_samples(
        "image: scene.png, mask: mask.png",
        "video: clip, frames: 1, "
        "prompts: [{frame: 0, object: 1, mask: mask.png}, {frame: 0, object: 2, mask: scene.png}]",
        "image: scene.png, text: a cat",
    )
    listed, files = as_params(samples)
    assert [(name, s.number, s.pictures, s.frames, s.is_reordered) for name, s in listed] == [
        ("places", 0, ("image0",), 0, False),
        ("clip", 1, ("image1",), 1, False),
        ("clip", 1, ("image1",), 1, True),
        ("words", 2, ("image0",), 0, False),
    ]
    given, turned = (sample.prompts["prompts"] for name, sample in listed if name == "clip")
    assert [prompt["object"] for prompt in given] == [1, 2] and turned == given[::-1], "its objects in another order"
    assert {role: path.name for role, path in files.items()} == {
        "image0": "scene.png",
        "image1": "a.JPG",
        "mask0": "mask.png",
        "mask1": "scene.png",
    }
    assert listed[0][1].prompts == {"mask": "mask0"}
    prompts = listed[1][1].prompts["prompts"]
    assert isinstance(prompts, list) and [prompt["mask"] for prompt in prompts] == ["mask0", "mask1"]


def test_each_pipeline_has_actions_of_its_own_and_only_its_files(load_samples: Load) -> None:
    load_samples(
        "image: scene.png, text: a cat", "video: clip, frames: 2, prompts: [{frame: 0, object: 1, points: 'pos:1,2'}]"
    )
    plan = make_plan(load("m.yaml", Path.cwd()))
    names = [action.name for action in plan.actions if action.stage in ("samples", "reference", "verify")]
    assert names == [
        "samples", "samples@clip", "reference:net", "reference:net@clip", "verify:net.fp32", "verify:net.fp32@clip",
    ]  # fmt: skip
    assert {path.name for path in plan.action("samples").files.values()} == {"t.json", "scene.png"}
    assert {path.name for path in plan.action("samples@clip").files.values()} == {"t.json", "a.JPG", "b.jpg"}
    assert plan.action("export:net").after == ("samples", "samples@clip")


# ------------------------------------------------------------------ what is refused

POINT = "points: 'pos:1,2'"
CLIP = "video: clip, frames: 3"
SUCH_AS = "prompts on frames, such as {frame: 0, object: 1, points: 'pos:40,40'}"

WRONG: dict[str, tuple[str, tuple[str, ...]]] = {
    "no picture": ("text: a cat", ("samples[0].image: required key 'image' is missing",)),
    "a clip without a video": (
        f"frames: 2, prompts: [{{frame: 0, object: 1, {POINT}}}]",
        ("samples[0].video: required key 'video' is missing",),
    ),
    "a picture and a clip": (
        f"image: scene.png, {CLIP}, prompts: [{{frame: 0, object: 1, {POINT}}}]",
        ("samples[0].video: is a clip, and 'image' a picture: a sample is one of both",),
    ),
    "no prompt": ("image: scene.png", ("samples[0]: needs a prompt: text, boxes, points, mask",)),
    "an empty text": (
        "image: scene.png, text: ' '",
        ("samples[0].text: is empty; write a noun phrase, or leave the key out",),
    ),
    "a point that is none": (
        "image: scene.png, points: 'pos:1,2,3'",
        ("samples[0].points: point 'pos:1,2,3' is not 'pos:x,y' or 'neg:x,y' (pixels, joined by ';')",),
    ),
    "points that are no string": (
        "image: scene.png, points: [1, 2]",
        ("samples[0].points: must be a string such as 'pos:40,40;neg:90,80', found the list [1, 2]",),
    ),
    "a mask that is not there": (
        "image: scene.png, mask: mas.png",
        ("samples[0].mask: no such file 'mas.png'; did you mean 'mask.png'?",),
    ),
    "keys that no pipeline takes together": (
        f"image: scene.png, text: a cat, {POINT}",
        (
            "samples[0]: has points and text, which no pipeline takes together "
            "(words: text; places: boxes, points, mask)",
        ),
    ),
    "a key that another family takes": (
        f"{CLIP}, prompts: [{{frame: 0, object: 1, text: a cat}}]",
        (
            "samples[0].prompts[0].text: is nothing that family 'blink' in layout 'v1' takes with a clip, "
            "but points, mask or both; narrator, layout v1 takes it",
        ),
    ),
    "a key that nobody takes with a clip": (
        f"{CLIP}, prompts: [{{frame: 0, object: 1, boxes: 'pos:1,2,3,4'}}]",
        (
            "samples[0].prompts[0].boxes: is nothing that family 'blink' in layout 'v1' takes with a clip, "
            "but points, mask or both",
        ),
    ),
    "no such folder": (
        f"video: clp, frames: 3, prompts: [{{frame: 0, object: 1, {POINT}}}]",
        ("samples[0].video: no such file 'clp'; did you mean 'clip'?",),
    ),
    "a folder without pictures": (
        f"video: empty, frames: 3, prompts: [{{frame: 0, object: 1, {POINT}}}]",
        ("samples[0].video: folder 'empty' holds no picture (.jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff)",),
    ),
    "more frames than pictures": (
        f"video: clip, frames: 4, prompts: [{{frame: 0, object: 1, {POINT}}}]",
        ("samples[0].frames: is 4, but folder 'clip' holds 3 pictures",),
    ),
    "no frames": (
        f"video: clip, prompts: [{{frame: 0, object: 1, {POINT}}}]",
        ("samples[0].frames: required key 'frames' is missing: how many frames of the clip are taken",),
    ),
    "frames of nothing": (
        f"video: clip, frames: 0, prompts: [{{frame: 0, object: 1, {POINT}}}]",
        ("samples[0].frames: must be at least 1, found the number 0",),
    ),
    "more frames than a picture has": (
        f"video: scene.png, frames: 3, prompts: [{{frame: 0, object: 1, {POINT}}}]",
        ("samples[0].frames: is 3, but 'scene.png' is one picture; a clip is a folder of pictures or a video file",),
    ),
    "a frame before the first": (
        f"{CLIP}, prompts: [{{frame: -1, object: 1, {POINT}}}]",
        ("samples[0].prompts[0].frame: must be at least 0, found the number -1",),
    ),
    "a prompt on no frame": (
        f"{CLIP}, prompts: [{{object: 1, {POINT}}}]",
        ("samples[0].prompts[0].frame: required key 'frame' is missing",),
    ),
    "a frame that is not taken": (
        f"video: clip, frames: 2, prompts: [{{frame: 2, object: 1, {POINT}}}]",
        ("samples[0].prompts[0].frame: is 2, but 2 frames are taken, 0 to 1",),
    ),
    "a prompt of no object": (
        f"{CLIP}, prompts: [{{frame: 0, {POINT}}}]",
        ("samples[0].prompts[0].object: required key 'object' is missing: a number of your choice for what is meant",),
    ),
    "an object without a prompt": (
        f"{CLIP}, prompts: [{{frame: 0, object: 1}}]",
        ("samples[0].prompts[0]: needs a prompt: points, mask or both",),
    ),
    "removed before it is there": (
        f"{CLIP}, prompts: [{{frame: 0, object: 1, {POINT}}}, {{frame: 1, remove: 2}}]",
        ("samples[0].prompts[1].remove: object 2 has no prompt before this one",),
    ),
    "removed twice": (
        f"{CLIP}, prompts: [{{frame: 0, object: 1, {POINT}}}, {{frame: 1, remove: 1}}, {{frame: 2, remove: 1}}]",
        ("samples[0].prompts[2].remove: object 1 has no prompt before this one",),
    ),
    "no prompts at all": (CLIP, (f"samples[0].prompts: required key 'prompts' is missing: {SUCH_AS}",)),
    "an empty list of prompts": (f"{CLIP}, prompts: []", (f"samples[0].prompts: is empty: {SUCH_AS}",)),
    "a prompt beside the frames": (
        f"{CLIP}, {POINT}, prompts: [{{frame: 0, object: 1, {POINT}}}]",
        (
            "samples[0].points: stands beside a clip, whose prompts are on frames: "
            "`prompts: [{frame: 0, object: 1, points: 'pos:40,40'}]`",
        ),
    ),
    "an unknown key of a prompt": (
        f"{CLIP}, prompts: [{{frame: 0, objekt: 1, {POINT}}}]",
        (
            "samples[0].prompts[0].objekt: unknown key 'objekt' "
            "(allowed: boxes, frame, mask, object, points, remove, text); did you mean 'object'?",
            "samples[0].prompts[0].object: required key 'object' is missing: a number of your choice for what is meant",
        ),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_every_wrong_sample_is_named_with_what_would_do(load_samples: Load, case: str) -> None:
    sample, expected = WRONG[case]
    with pytest.raises(ManifestError) as caught:
        load_samples(sample)
    assert caught.value.problems == tuple(f"m.yaml:11: {line}" for line in expected)


def test_a_clip_in_a_layout_without_a_pipeline_of_clips_names_who_takes_one(load_samples: Load) -> None:
    with pytest.raises(ManifestError) as caught:
        load_samples(f"{CLIP}, prompts: [{{frame: 0, object: 1, {POINT}}}]", f"image: scene.png, {POINT}", layout="v2")
    assert caught.value.problems == (
        "m.yaml:11: samples[0]: is a clip, which no pipeline of family 'blink' in layout 'v2' takes; "
        "blink, layout v1, narrator, layout v1 take it",
        "m.yaml:12: samples[1].points: is nothing that family 'blink' in layout 'v2' takes with a picture, but text; "
        "blink, layout v1 takes it",
    )


# ------------------------------------------------------------------ what is remembered


def test_a_clip_whose_first_pictures_are_others_is_checked_again(
    load_samples: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_samples(f"video: clip, frames: 2, prompts: [{{frame: 0, object: 1, {POINT}}}]")

    def pictures() -> list[str]:
        found = cache.load("m.yaml", tmp_path, DigestCache(tmp_path / "digests.json"), tmp_path / "entries")
        return [path.name for path in found.samples[0].pictures]

    checks = []
    monkeypatch.setattr(checking, "load", lambda *asked: checks.append(asked) or load(*asked))
    assert pictures() == pictures() == ["a.JPG", "b.jpg"] and len(checks) == 1
    Path("clip", "z.png").write_bytes(b"behind those that are taken")
    assert pictures() == ["a.JPG", "b.jpg"] and len(checks) == 1
    Path("clip", "a0.png").write_bytes(b"between them")
    assert pictures() == ["a.JPG", "a0.png"] and len(checks) == 2
    Path("clip", "a.JPG").unlink()
    assert pictures() == ["a0.png", "b.jpg"] and len(checks) == 3
