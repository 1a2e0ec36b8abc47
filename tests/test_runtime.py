"""The runtime: a folder of built files, alone, is loaded and segments pictures by the host code of verification."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import miniature
import numpy as np
import pytest
import runnable
from PIL import Image

from sam3_build import registry, runtime
from sam3_build.errors import BuildError, NoDeviceError
from sam3_build.model_format import GRAPH, JudgedFile, ModelFile, text_of
from sam3_build.pipeline.cases import listed_cases, outputs_of
from sam3_build.plugins import RunRequest
from sam3_build.runtime.choice import choose
from sam3_build.runtime.folder import ModelFolder, open_folder
from sam3_build.runtime.found import Found
from sam3_build.runtime.opened import _Pictures
from sam3_build.spec import DeviceFingerprint

SCENE = miniature.SCENES / "scene1.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The FP32 graphs, which passed. Only read."""
    return runnable.write(tmp_path_factory.mktemp("built") / "moved", verdict=runnable.PASSED)


@pytest.fixture(scope="module")
def model(folder: Path):
    with runtime.load(folder) as opened:
        yield opened


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to change."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


def change(folder: Path, **fields: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


# ------------------------------------------------------------------ what is found


@pytest.mark.ci
def test_segment_gives_the_bits_that_verification_compares(model: runtime.Model) -> None:
    """Every sample of the manifest, against post-processing of the chain's outputs on ONNX Runtime FP32."""
    computed, samples = miniature.folder("chain:decoder.fp32"), miniature.params("samples")["samples"]
    listed = listed_cases(miniature.folder("samples"))
    alone = [case for case in listed if case.name.startswith("sample")]
    assert len(alone) == len(samples) == 6
    files = miniature._session(miniature.MANIFEST).plan.action("samples").files
    for case in alone:
        (position,) = case.samples
        picture, prompts = files[samples[position]["pictures"][0]], samples[position]["prompts"]
        outputs = {name: array[0] for name, array in outputs_of(computed / f"{case.name}.npz").items()}
        size = Image.open(picture).size[::-1]
        expected = registry.family_code("sam3_image").results.find(outputs, size, 0.5)
        boxes = prompts.get("boxes", ())
        found = model.segment(
            picture,
            prompts.get("text"),
            boxes=[[b["x"], b["y"], b["x"] + b["w"], b["y"] + b["h"]] for b in boxes] or None,
            box_labels=[b["label"] for b in boxes] or None,
        )
        for name in ("masks", "boxes", "scores"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), (case.name, name)


def test_a_picture_is_encoded_once_and_several_texts_are_one_run_of_the_decoder(folder: Path) -> None:
    with runtime.load(folder) as model:
        scene = model.encode(SCENE)
        both = scene.segment(["red circle", "star"])
        assert both.labels == ["red circle", "red circle", "star"] and both.prompts.tolist() == [0, 0, 1]
        again = model.segment(str(SCENE), "star")
        assert model.runs == {"vision_encoder": 1, "text_encoder": 2, "geometry_encoder": 2, "decoder": 2}
    np.testing.assert_allclose(again.boxes, both.boxes[2:], atol=0.01)
    assert again.masks.shape == (1, 168, 168) and again.masks.dtype == bool


def test_a_path_an_image_and_an_array_give_the_same(model: runtime.Model) -> None:
    image = Image.open(SCENE)
    found = [model.segment(p, "star") for p in (SCENE, str(SCENE), image, np.asarray(image.convert("RGB")))]
    assert all(np.array_equal(found[0].masks, other.masks) for other in found[1:])


@pytest.mark.parametrize("kind", ["turned", "alpha", "palette", "cmyk", "grey16"])
def test_pictures_of_every_kind_are_seen_as_viewers_show_them(model: runtime.Model, tmp_path: Path, kind: str) -> None:
    """As a file and as an opened image alike."""
    image, file = Image.open(SCENE).convert("RGB"), tmp_path / "picture.png"
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise
        image.rotate(90, expand=True).save(file, exif=exif)
    elif kind == "alpha":
        image.convert("RGBA").save(file)
    elif kind == "palette":
        image.quantize(256).save(file)
    elif kind == "cmyk":
        file = tmp_path / "picture.tif"
        image.convert("CMYK").save(file)
    else:
        grey = np.asarray(image.convert("L"), np.uint16) * 257
        Image.fromarray(grey).save(file)
    of_file, of_image = model.segment(file, "star"), model.segment(Image.open(file), "star")
    assert np.array_equal(of_file.masks, of_image.masks) and np.array_equal(of_file.picture, of_image.picture)
    assert of_file.picture.shape == (168, 168, 3)
    expected = model.segment(SCENE, "star")
    if kind in ("turned", "alpha"):
        assert np.array_equal(of_file.masks, expected.masks)
    elif kind == "cmyk":
        assert len(of_file) == len(expected) == 1


def test_pictures_that_do_not_fit_into_the_memory_are_encoded_again(folder: Path) -> None:
    one = 4 * 32 * (4 * 12) ** 2  # far below what the vision encoder gives of a picture
    with runtime.load(folder, memory=one) as model:
        for _ in range(2):
            model.segment(SCENE, "star")
        assert model.runs["vision_encoder"] == 2


def test_of_encoded_pictures_those_used_last_are_kept_within_the_memory() -> None:
    kept, computed = _Pictures(250), {"vision_encoder": {"features": np.zeros(100, np.uint8)}}
    kept.put("one", computed)
    kept.put("two", computed)
    assert kept.get("one") is computed
    kept.put("three", computed)
    assert [name for name in ("one", "two", "three") if kept.get(name)] == ["one", "three"]
    kept.put("large", {"vision_encoder": {"features": np.zeros(300, np.uint8)}})
    assert kept.get("one") and kept.get("three") and not kept.get("large")


class Away:
    """An output that does not lie on the host, as those that sessions of engines give; which of them numpy reads."""

    read: ClassVar[set[str]] = set()

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.away, self.shape, self.dtype = name, array, array.shape, array.dtype
        self.ndim, self.nbytes = array.ndim, array.nbytes

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        Away.read.add(self.name)
        return self.away.copy()

    def repeat(self, repeats: int, axis: int) -> Away:
        return Away(self.name, self.away.repeat(repeats, axis))


def test_arrays_go_from_network_to_network_where_they_lie(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backend whose sessions take and give such arrays, in the place of a GPU's."""
    real, wanted = registry.backend("onnxruntime"), {}

    @contextmanager
    def session(request: RunRequest) -> Iterator[object]:
        wanted[request.stem] = request.on_device
        with real.session(request) as opened:

            def run(arrays: dict[str, object]) -> dict[str, object]:
                outputs = opened.run({n: a.away if isinstance(a, Away) else a for n, a in arrays.items()})
                return {n: Away(n, a) for n, a in outputs.items()} if request.on_device else dict(outputs)

            yield SimpleNamespace(inputs=opened.inputs, run=run)

    with runtime.load(folder) as model:
        expected = model.segment(SCENE, ["red circle", "star"])
    monkeypatch.setattr(registry, "backend", lambda name: replace(real, session=session))
    with runtime.load(folder) as model:
        found = model.segment(SCENE, ["red circle", "star"])
    assert np.array_equal(found.masks, expected.masks) and np.array_equal(found.scores, expected.scores)
    assert wanted == {f"{name}.fp32": name != "decoder" for name in runnable.COMPONENTS}
    joined = {"text_features", "text_mask", "geometry_features", "geometry_mask"}
    assert Away.read == joined, "what is computed of a picture is read by the networks alone"


def test_many_pictures_come_one_by_one_and_in_order(model: runtime.Model) -> None:
    before = model.runs["decoder"]
    found = model.segment_many([miniature.SCENES / "heldout501.png", SCENE], "red circle")
    assert [len(next(found)), model.runs["decoder"] - before] == [0, 1]
    assert len(next(found)) == 2


def test_boxes_are_corners_in_pixels_and_what_is_not_meant_is_left_out(model: runtime.Model) -> None:
    greens = model.segment(miniature.SCENES / "heldout538.png", boxes=[[19, 106, 48, 135]])
    assert len(greens) == 3 and set(greens.labels) == {"object"}
    some = model.segment(
        miniature.SCENES / "heldout524.png", "star", boxes=[[93, 43, 168, 113]], box_labels=[0], max_found=1
    )
    assert len(some) == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "nothing is asked for"),
        ({"text": " "}, "text[0] is empty"),
        ({"text": ["star", ""]}, "text[1] is empty"),
        ({"text": "star " * 200}, "use fewer words"),
        ({"text": "zeppelin"}, "no token for some word"),
        ({"boxes": [[0, 0, 9, 9], [500, 0, 600, 10]]}, "boxes[1]: the box 500,0,100,10 lies outside the picture"),
        ({"boxes": [[9, 9, 9, 20]]}, "boxes[0]: [9.0, 9.0, 9.0, 20.0] has no area"),
        ({"boxes": [[0, 0, float("nan"), 9]]}, "boxes[0]: [0.0, 0.0, nan, 9.0] is no box"),
        ({"boxes": [[0, 0, 9, 9]], "box_labels": [2]}, "boxes[0]: the label is 2; 1 is meant, 0 is not meant"),
        ({"points": [[3, 4]]}, "this model takes no points; pipeline image takes text, boxes"),
        ({"text": "star", "points": [[3, 4]], "mask": "m.png"}, "this model takes no points or mask"),
        ({"boxes": [0, 0, 9, 9]}, "boxes is a list of lists of numbers, and boxes[0] is 0"),
        ({"points": [[3, 4, 5]]}, "points[0]: [3.0, 4.0, 5.0] is no point"),
        ({"boxes": [[0, 0, 9, 9]], "box_labels": [1, 0]}, "1 boxes and 2 box_labels"),
        ({"text": "star", "threshold": 3.0}, "threshold is 3.0"),
        ({"text": "star", "max_found": 0}, "max_found is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(model: runtime.Model, asked: dict[str, object], message: str) -> None:
    with pytest.raises(BuildError) as error:
        model.segment(SCENE, **asked)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_pictures_that_are_none_are_refused(model: runtime.Model, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(SCENE.read_bytes()[:300])
    for picture, message in (
        (tmp_path / "cut.png", "cut.png cannot be read as a picture"),
        (tmp_path / "none.png", "cannot be read: No such file"),
        (np.zeros((4, 4), np.uint8), "an array of uint8[4, 4] is no picture"),
        (3, "int is no picture"),
    ):
        with pytest.raises(BuildError, match=message.replace("[", r"\[")):
            model.segment(picture, "star")  # type: ignore[arg-type]


# ------------------------------------------------------------------ what others take


def test_run_lengths_are_cocos_and_polygons_enclose_their_masks() -> None:
    from pycocotools import mask as coco

    random = np.random.default_rng(0)
    masks = random.random((5, 37, 53)) > np.array([0.01, 0.5, 0.99, 2, -1])[:, None, None]
    n = len(masks)
    boxes = np.tile(np.array([0, 0, 53, 37], np.float32), (n, 1))
    prompts = np.zeros(n, np.int64)
    found = Found(masks, boxes, np.ones(n, np.float32), ["a"] * n, prompts, np.zeros((37, 53, 3), np.uint8), ("a",))
    for mask, rle, one in zip(masks, found.rle(), found.to_coco(7), strict=True):
        theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert rle["counts"] == theirs["counts"].decode() and rle["size"] == [37, 53]
        assert (one["area"], one["bbox"], one["image_id"]) == (int(mask.sum()), [0, 0, 53, 37], 7)
    assert len(found.polygons()[3]) == 0 and found.polygons()[4][0].tolist() == [[0, 0], [0, 36], [52, 36], [52, 0]]


def test_detections_of_supervision_have_the_same_instances(model: runtime.Model) -> None:
    supervision = pytest.importorskip("supervision")
    found = model.segment(SCENE, ["red circle", "star"])
    detections = found.to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == 3
    assert np.array_equal(detections.xyxy, found.boxes) and np.array_equal(detections.mask, found.masks)
    assert np.array_equal(detections.confidence, found.scores)
    assert detections.class_id.tolist() == [0, 0, 1]
    assert detections["class_name"].tolist() == ["red circle", "red circle", "star"]
    assert detections[detections["class_name"] == "star"].area.tolist() == [found.masks[2].sum()]
    drawn = supervision.MaskAnnotator().annotate(found.picture.copy(), detections)
    assert (drawn != found.picture).any(axis=2)[found.masks[0]].any()
    assert len(model.segment(miniature.SCENES / "heldout501.png", "blue circle").to_supervision()) == 0


def test_without_supervision_it_says_what_to_install(model: runtime.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from sam3_build.runtime import found

    monkeypatch.setattr(found, "find_spec", lambda name: None)
    with pytest.raises(BuildError, match=r"supervision is not installed: pip install 'sam3-build\[supervision\]'"):
        model.segment(SCENE, "star").to_supervision()


def test_a_saved_picture_has_the_masks_in_colour_and_the_rest_as_it_is(model: runtime.Model, tmp_path: Path) -> None:
    found = model.segment(SCENE, "red circle")
    found.save(tmp_path / "seen.png")
    seen, before = np.asarray(Image.open(tmp_path / "seen.png")), found.picture
    assert (seen != before).any(axis=2)[found.masks.any(axis=0)].all()
    assert np.array_equal(seen[:20], before[:20])
    with pytest.raises(BuildError, match=r"no picture is written with the suffix '.onnx'"):
        found.save(tmp_path / "seen.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["seen.png"]


# ------------------------------------------------------------------ which folder, which files


def test_a_folder_of_onnx_files_alone_is_refused_with_what_is_missing(own: Path) -> None:
    bare = own / "decoder"
    with pytest.raises(BuildError, match=r"has no model.json, only decoder.fp32.onnx: .*`doit model` writes it"):
        runtime.load(bare)
    with pytest.raises(BuildError, match="is no folder"):
        runtime.load(own / "nothing")


def test_another_format_is_refused(own: Path) -> None:
    change(own, format=2)
    with pytest.raises(BuildError, match="format 2, and this sam3-build reads 1"):
        runtime.load(own)


def test_a_damaged_description_is_one_message(own: Path) -> None:
    change(own, files="decoder.onnx")
    with pytest.raises(BuildError, match=r"model.json or verdicts.json is damaged: .*ModelDescription.files"):
        runtime.load(own)
    (own / "model.json").write_text("{")
    with pytest.raises(BuildError, match=r"model.json cannot be read"):
        runtime.load(own)


def test_a_file_that_is_not_the_one_listed_is_refused(own: Path) -> None:
    file = own / "decoder" / "decoder.fp32.onnx"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(BuildError, match=r"decoder.fp32.onnx has the sha256 \w+, and model.json lists \w+"):
        runtime.load(own)
    file.unlink()
    with pytest.raises(BuildError, match=r"lacks decoder/decoder.fp32.onnx"):
        runtime.load(own)


def test_a_component_that_is_not_there_is_named(own: Path) -> None:
    files = json.loads((own / "model.json").read_bytes())["files"]
    change(own, files=[file for file in files if file["component"] != "text_encoder"])
    with pytest.raises(BuildError, match="onnxruntime fp32: the folder lacks text_encoder"):
        runtime.load(own)


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        (None, "is unverified: no verdict is known of it"),
        (JudgedFile("fail", {"pipeline": "pass"}), "fail"),
        (JudgedFile("pass", {"pipeline": "not judged"}), "pipeline image: not judged"),
        (JudgedFile("pass", {"pipeline": "pass"}, emulated=True), "was judged by an emulation alone"),
    ],
)
def test_what_did_not_pass_on_its_own_runs_only_when_asked_for(own: Path, verdict: JudgedFile | None, why: str) -> None:
    described = open_folder(own).description
    judged = {file.sha256: {GRAPH: verdict} for file in described.files if verdict}
    pipeline = described.pipelines[0]
    with pytest.raises(BuildError, match=why):
        choose(ModelFolder(own, described, judged), pipeline)
    assert choose(ModelFolder(own, described, judged), pipeline, unverified=True).name == "onnxruntime fp32"


def test_unknown_targets_and_precisions_are_refused_with_the_nearest(own: Path) -> None:
    with pytest.raises(BuildError, match="no target 'onnxruntim'; did you mean 'onnxruntime'"):
        runtime.load(own, target="onnxruntim")
    with pytest.raises(BuildError, match="no precision 'fp23'; did you mean 'fp32'"):
        runtime.load(own, precision="fp23")


GPU = DeviceFingerprint({"os": "linux-x86_64", "compute_capability": "8.9", "name": "L4"}, "580.65.06", "13.0", "u", 0)


def test_auto_takes_tensorrt_then_openvino_then_fp32_on_onnx_runtime(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam3_build.runtime import choice

    monkeypatch.setattr(choice, "find_spec", lambda name: name)  # every library is there
    opened = open_folder(folder)
    options = {"rtx": {"compute_capabilities": ["8.9"]}, "cpu": {}}
    backends = {"rtx": "tensorrt_rtx", "cpu": "onnxruntime"}
    files: list[ModelFile] = []
    for target, precision in (("cpu", "fp16"), ("cpu", "fp32"), ("rtx", "fp32"), ("rtx", "fp16")):
        files += [
            replace(
                f,
                target=target,
                precision=precision,
                backend=backends[target],
                options=options[target],
                device=registry.backend(backends[target]).device_fields(options[target], GPU),
                sha256=f"{f.component}{target}{precision}",
            )
            for f in opened.description.files
        ]
    sides = {"rtx": "rtx", "cpu": GRAPH}
    verdicts = {f.sha256: {sides[str(f.target)]: runnable.PASSED} for f in files}
    described = replace(opened.description, files=tuple(files))
    pipeline = described.pipelines[0]

    def first(judged: object = verdicts, gpu: DeviceFingerprint | None = GPU, **asked: object) -> str:
        def find(backend: object) -> DeviceFingerprint:
            if gpu is None:
                raise NoDeviceError("none found")
            return gpu

        return choose(ModelFolder(folder, described, judged), pipeline, find=find, **asked).name  # type: ignore[arg-type]

    assert first() == "rtx fp16"
    failed = {f.sha256: verdicts[f.sha256] for f in files if (f.target, f.precision) != ("rtx", "fp16")}
    assert first(failed) == "rtx fp32"
    assert first(gpu=None) == "cpu fp32"
    assert first(target="cpu", precision="fp16") == "cpu fp16"
    turing = replace(GPU, gpu_class={**GPU.gpu_class, "compute_capability": "7.5"})
    assert first(gpu=turing) == "cpu fp32"
    with pytest.raises(BuildError, match=r"is for compute capability 8\.9; this machine's GPU has 7\.5"):
        first(gpu=turing, target="rtx")


def test_the_runtime_needs_no_torch_and_no_build_tools(folder: Path) -> None:
    code = f"""
import sys
for name in ("torch", "transformers", "polygraphy", "doit", "onnx", "pydantic", "yaml", "scipy"):
    sys.modules[name] = None
from sam3_build import runtime
with runtime.load({str(folder)!r}) as model:
    assert len(model.segment({str(SCENE)!r}, "red circle")) == 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_written_is_what_is_read(folder: Path) -> None:
    assert text_of(open_folder(folder).description) == (folder / "model.json").read_bytes()
