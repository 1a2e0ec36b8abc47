"""The network that is trained computes what is exported, learns two scenes by heart, and its state can be taken up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from build_space import ROOT
from sam3_weights import assemble, skeleton

from training.batches import Batch, Words, collate, glance, make
from training.evaluate import evaluate, pytorch
from training.learning import Average, judge, tensors
from training.losses import Weights
from training.network import Learner
from training.questions import ask_box
from training.running import resume, save
from training.scenes import draw

CONFIG = json.loads((ROOT / "manifests" / "sam3_mini" / "config.json").read_text())
TOKENIZER = ROOT / "manifests" / "sam3_mini" / "tokenizer.json"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose more by sharing work than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def words() -> Words:
    return Words(TOKENIZER)


@pytest.fixture
def learner() -> Learner:
    torch.manual_seed(3)
    return Learner(CONFIG, groups=2)


@pytest.fixture(scope="module")
def batch(words: Words) -> Batch:
    return make(9, 0, 2, 3, words)


def test_a_batch_depends_on_seed_and_step_only(words: Words, batch: Batch) -> None:
    again = tensors(make(9, 0, 2, 3, words))
    assert all(torch.equal(value, again[name]) for name, value in tensors(batch).items())
    assert not np.array_equal(make(9, 1, 2, 3, words).images, batch.images)


def test_training_computes_what_the_exported_networks_compute(learner: Learner, batch: Batch) -> None:
    data = tensors(batch)
    with torch.no_grad():
        for value in learner.parameters():  # what starts at 0 must differ from what is forgotten
            value += 0.02 * torch.randn_like(value)
        levels = learner.encode(data["images"])
        prompt, valid = learner.prompt(
            levels, data["picture"], data["text"], data["input_ids"], data["attention_mask"], data["boxes"],
            data["labels"], data["geometry"],
        )  # fmt: skip
        picture = data["picture"]
        answers = learner.answer(levels[2][picture], levels[3][picture], prompt, valid)
        masks, _ = learner.masks(levels, picture, answers, torch.arange(len(picture)))
        kept = learner.model.state_dict()
        keys = skeleton("decoder", CONFIG).state_dict()
        exported = assemble("decoder", CONFIG, {key: kept[key] for key in keys})
        wanted = exported(*(level[picture] for level in levels), prompt, valid)
    centre, size = answers.boxes[-1, 0, ..., :2], answers.boxes[-1, 0, ..., 2:]
    corners = torch.cat([centre - size / 2, centre + size / 2], -1)
    ours = masks, corners, answers.logits[-1, 0], answers.presence[-1, :, None]
    for mine, theirs in zip(ours, wanted, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4 * float(theirs.std()))


def test_text_without_padding_means_the_same(learner: Learner, words: Words) -> None:
    """The exported text encoder reads 32 tokens; training feeds only those that count."""
    ids, mask = (torch.from_numpy(array) for array in words.padded(["red circle"]))
    longer = torch.nn.functional.pad(ids, (0, 27), value=2), torch.nn.functional.pad(mask, (0, 27))
    with torch.no_grad():
        short, valid = learner.parts.text_encoder(ids, mask)
        long, _ = learner.parts.text_encoder(*longer)
    assert torch.allclose(short[valid], long[:, :5][valid], atol=1e-5)


@pytest.mark.ci
def test_two_scenes_are_learnt_by_heart(learner: Learner, words: Words) -> None:
    scenes = [draw(11, 0), draw(11, 1)]
    asked = [(i, ask_box(scene, np.random.default_rng(i))) for i, scene in enumerate(scenes)]
    data, aside = tensors(collate(scenes, asked, words)), tensors(glance(11, 0, 2))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)
    seen = []
    for _ in range(40):
        loss, parts = judge(learner, data, aside, Weights())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        seen.append({"total": float(loss.detach()), **parts})
    first, last = seen[0], seen[-1]
    for name in ("total", "classes", "corners", "mask", "dice", "semantic", "cells", "sight", "kinds"):
        assert last[name] < 0.8 * first[name], f"{name}: {first[name]:.3f} -> {last[name]:.3f}"


def test_a_run_is_taken_up_where_it_was(learner: Learner, tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    average = Average(learner.model, 100)
    average.update(learner.model, 1)
    save(tmp_path, learner, optimizer, average, 17)
    torch.manual_seed(4)
    other = Learner(CONFIG, groups=2)
    taken = Average(other.model, 100)
    assert resume(tmp_path, other, torch.optim.AdamW(other.parameters(), lr=1e-3), taken) == 17
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), learner.parameters(), strict=True))
    assert all(torch.equal(taken.weights[key], value) for key, value in average.weights.items())
    assert not list(tmp_path.glob("*.part"))


def test_untrained_weights_answer_badly(learner: Learner) -> None:
    numbers = evaluate(pytorch(learner.model.state_dict(), CONFIG), TOKENIZER, scenes=2)
    assert numbers["text"]["iou"] < 0.5 and numbers["box"]["iou"] < 0.5


def test_no_build_loads_training() -> None:
    files = [*(ROOT / "sam3_build").rglob("*.py"), ROOT / "dodo.py"]
    assert not [file for file in files if re.search(r"^\s*(from|import) training\b", file.read_text(), re.MULTILINE)]
