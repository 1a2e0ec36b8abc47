"""The evaluation file: pictures and annotations that COCO's own tools can read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from build_space import ROOT
from PIL import Image

from sam3_build.manifest.load import load
from sam3_build.pipeline.prompts import boxes_of
from training.coco import run_lengths, write
from training.scenes import SIDE, draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    write(folder, 5, range(3))
    return folder


def test_run_lengths_give_the_mask_back_column_by_column() -> None:
    mask = np.random.default_rng(0).random((5, 7)) < 0.5
    for each in (mask, ~mask, np.zeros((2, 2), bool), np.ones((2, 2), bool)):
        lengths = run_lengths(each)
        values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        assert np.array_equal(values.reshape(each.shape[::-1]).T, each)


def test_the_file_holds_the_scenes(folder: Path) -> None:
    document = json.loads((folder / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    for image in document["images"]:
        scene = draw(5, image["id"])
        assert np.array_equal(np.asarray(Image.open(folder / "images" / image["file_name"])), scene.picture)
        mine = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        assert [names[a["category_id"]] for a in mine] == [f"{s.colour} {s.shape}" for s in scene.shapes]
        assert [a["area"] for a in mine] == [int(s.mask.sum()) for s in scene.shapes]
    ids = [a["id"] for a in document["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    for question in document["questions"]:
        assert set(question["annotation_ids"]) <= {
            a["id"] for a in document["annotations"] if a["image_id"] == question["image_id"]
        }


def test_the_manifest_asks_the_questions_of_the_file(folder: Path) -> None:
    document = json.loads((folder / "annotations.json").read_text())
    samples = load(str(folder / "scenes.yaml"), ROOT).samples
    assert [sample.pictures[0].name for sample in samples] == [image["file_name"] for image in document["images"]]
    asked = [(0, "text"), (1, "box"), (2, "both")]
    for sample, (number, kind) in zip(samples, asked, strict=True):
        (question,) = (q for q in document["questions"] if q["image_id"] == number and q["kind"] == kind)
        assert sample.prompts.get("text", "visual") == question["text"]
        found = [(box.label, [box.x, box.y, box.x + box.w, box.y + box.h]) for box in boxes_of(sample.prompts)]
        assert found == [(box["label"], box["xyxy"]) for box in question["boxes"]]


def test_cocos_own_tools_read_it(folder: Path) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    read = COCO(str(folder / "annotations.json"))
    for number in read.getImgIds():
        masks = [read.annToMask(a).astype(bool) for a in read.loadAnns(read.getAnnIds(imgIds=[number]))]
        assert all(np.array_equal(m, s.mask) for m, s in zip(masks, draw(5, number).shapes, strict=True))
        assert masks[0].shape == (SIDE, SIDE)
