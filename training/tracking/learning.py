"""The losses of a tracker on pictures and on clips: prompts are given round by round, as a user would give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.scenes import COLOURS, SHAPES, SIDE
from training.tracking import batches, prompts
from training.tracking.network import Answer, Levels, Tracker

SCALE = batches.SIZE / SIDE
CLICKS, BOXES = "clicks", "boxes"
# In such a share of the clips pointers are read.
POINTING = 0.5
# A hidden object counts as so many that can be seen: there are few, and those of a few pixels look like them.
HIDDEN = 4.0


@dataclass
class Marks:
    """Points of rows, all with equally many: [r, n, 2] in pixels of the network's input, and their labels [r, n]."""

    points: Tensor
    labels: Tensor

    def and_one(self, points: Tensor, labels: Tensor) -> Marks:
        """Return them with one more point in each row: [r, 2], [r]."""
        return Marks(torch.cat([self.points, points[:, None]], 1), torch.cat([self.labels, labels[:, None]], 1))


class Learner(nn.Module):
    """A tracker, and a head that says of each cell which colour and shape lies there: it teaches the encoder to see."""

    def __init__(self, tracker: Tracker) -> None:
        """Add the head."""
        super().__init__()
        self.tracker = tracker
        self.sight = nn.Conv2d(tracker.config.vision_config.fpn_hidden_size, len(COLOURS) + 1 + len(SHAPES) + 1, 1)


def clicks(masks: np.ndarray, rng: np.random.Generator) -> Marks:
    """Return a click on each mask [r, side, side] bool, half of them in its middle."""
    points = [prompts.middle(mask) if rng.random() < 0.5 else prompts.click(mask, rng) for mask in masks]
    return Marks(torch.from_numpy(np.stack(points) * np.float32(SCALE))[:, None], torch.ones(len(masks), 1))


def first_clicks(masks: np.ndarray) -> Marks:
    """Return a click into the middle of each mask."""
    points = np.stack([prompts.middle(mask) for mask in masks]) * np.float32(SCALE)
    return Marks(torch.from_numpy(points)[:, None], torch.ones(len(masks), 1))


def boxes(masks: np.ndarray, rng: np.random.Generator | None) -> Marks:
    """Return the box of each mask, as its two corners."""
    edges = np.stack([prompts.box(mask, rng) for mask in masks]) * np.float32(SCALE)
    labels = torch.tensor([float(prompts.TOP_LEFT), float(prompts.BOTTOM_RIGHT)])
    return Marks(torch.from_numpy(edges).reshape(-1, 2, 2), labels.expand(len(masks), 2))


def corrections(wanted: np.ndarray, mask: Tensor, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
    """Return the next click of each row, where its logits [r, h, w] are wrong."""
    found = enlarged(mask) > 0
    pairs = [prompts.correction(w, f, rng) for w, f in zip(wanted, found.numpy(), strict=True)]
    points = torch.from_numpy(np.stack([point for point, _ in pairs]) * np.float32(SCALE))
    return points, torch.tensor([float(label) for _, label in pairs])


def enlarged(mask: Tensor) -> Tensor:
    """Return logits [r, h, w] at the size of the picture as drawn: [r, side, side]."""
    large = functional.interpolate(mask.detach()[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False)
    return large[:, 0]


def mask_losses(logits: Tensor, coverage: Tensor) -> tuple[Tensor, Tensor]:
    """Return each mask's cross entropy, focal, and its dice loss: [r, n].

    logits: [r, n, h, w]; coverage: [r, H, W]
    """
    finer = functional.interpolate(logits, coverage.shape[-2:], mode="bilinear", align_corners=False)
    wanted = coverage[:, None].expand_as(finer)
    chance = finer.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(finer, wanted, reduction="none")
    focal = (entropy * (chance - wanted).abs()).mean((2, 3))
    shared = 2 * (chance * wanted).sum((2, 3)) + 1
    return focal, 1 - shared / (chance.sum((2, 3)) + wanted.sum((2, 3)) + 1)


def answer_losses(answer: Answer, coverage: Tensor, visible: Tensor) -> dict[str, Tensor]:
    """Return the losses of an answer, means over its rows.

    Of the three masks for vague prompts the best one is taught, and always the one for precise prompts.
    coverage: [r, H, W]; visible: [r] bool
    """
    there = visible.float()
    count = there.sum().clamp(min=1)
    focal, dice = mask_losses(answer.masks, coverage)
    each = 20 * focal + dice
    best = each[:, 1:].argmin(1) + 1
    rows = torch.arange(len(each))
    with torch.no_grad():
        finer = functional.interpolate(answer.masks, coverage.shape[-2:], mode="bilinear", align_corners=False) > 0
        wanted = (coverage > 0.5)[:, None]
        real = (finer & wanted).sum((2, 3)) / (finer | wanted).sum((2, 3)).clamp(min=1)
    wrong_iou = (answer.ious - real).square().mean(1)
    return {
        "focal": ((focal[rows, best] + focal[:, 0]) * there).sum() / count,
        "dice": ((dice[rows, best] + dice[:, 0]) * there).sum() / count,
        "iou": (wrong_iou * there).sum() / count,
        "present": functional.binary_cross_entropy_with_logits(
            answer.present[:, 0], there, weight=torch.where(visible, 1.0, HIDDEN)
        ),
    }


WEIGHTS = {"focal": 20.0, "dice": 1.0, "iou": 1.0, "present": 0.5, "sight": 1.0}


def total(parts: list[dict[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the means of losses, and these."""
    names = {name for part in parts for name in part}
    means = {name: torch.stack([p[name] for p in parts if name in p]).mean() for name in sorted(names)}
    return sum((WEIGHTS[name] * value for name, value in means.items()), start=torch.zeros(())), means


def on_pictures(
    learner: Learner, data: batches.Pictures, rng: np.random.Generator, rounds: int = 3
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss on pictures: a click on half of the objects and a box around the others, then corrections."""
    tracker = learner.tracker
    levels, middle = tracker.encode(torch.from_numpy(data.images))
    coverage = torch.from_numpy(data.coverage)
    parts = [{"sight": _sight(learner.sight(middle), data)}]
    order = rng.permutation(len(data.masks))
    for kind, rows in ((CLICKS, order[: len(order) // 2]), (BOXES, order[len(order) // 2 :])):
        own = levels.of(torch.from_numpy(data.picture[rows]))
        features = tracker.without_memory(own.coarse)
        masks = data.masks[rows]
        marks = clicks(masks, rng) if kind == CLICKS else boxes(masks, rng)
        earlier = None
        for turn in range(rounds):
            answer = tracker.decode(own, features, marks.points, marks.labels, earlier)
            visible = torch.ones(len(rows), dtype=torch.bool)
            parts.append(answer_losses(answer, coverage[rows], visible))
            if turn + 1 < rounds:
                marks = marks.and_one(*corrections(masks, answer.mask, rng))
                earlier = answer.mask.detach()[:, None]
    return total(parts)


def _sight(answers: Tensor, data: batches.Pictures) -> Tensor:
    """Return the loss of the cells' colours and shapes, [p, colours + 1 + shapes + 1, CELLS, CELLS]."""
    split = len(COLOURS) + 1
    colours, shapes = torch.from_numpy(data.colours) + 1, torch.from_numpy(data.shapes) + 1
    return functional.cross_entropy(answers[:, :split], colours) + functional.cross_entropy(answers[:, split:], shapes)


class Memory:
    """What a tracker knows of objects r while it goes through a clip whose first frame was prompted."""

    def __init__(self, tracker: Tracker, span: int, *, pointing: bool = True) -> None:
        """Start empty. span: by which the ages of pointers are divided; pointing: whether pointers are read."""
        self._tracker, self._span, self._pointing = tracker, span, pointing
        self._memories: list[Tensor] = []
        self._pointers: list[Tensor] = []

    def features(self, coarse: Tensor) -> Tensor:
        """Return features [r, c, s, s] of the next frame that know what is remembered."""
        now = len(self._memories)
        seen = [(now - t, self._memories[t]) for t in range(max(1, now - 6), now)]
        pointers = [(now - t, self._pointers[t]) for t in (0, *range(max(1, now - 15), now))]
        return self._tracker.attend(
            coarse, [(0, self._memories[0]), *seen], pointers if self._pointing else [], self._span
        )

    def add(self, coarse: Tensor, answer: Answer, there: Tensor, *, binary: bool) -> None:
        """Remember the answer of the next frame. there: [r, 1], 1 where the object is visible, else 0."""
        self._memories.append(self._tracker.remember(coarse, answer.mask, there, binary=binary))
        self._pointers.append(self._tracker.point_at(answer, there))


def unprompted(tracker: Tracker, levels: Levels, memory: Memory) -> Answer:
    """Return the answer for a frame without prompts."""
    rows = len(levels.coarse)
    none = torch.zeros(rows, 1, 2), torch.full((rows, 1), -1.0)
    return tracker.decode(levels, memory.features(levels.coarse), *none)


@torch.inference_mode()
def follow(tracker: Tracker, frames: np.ndarray, marks: Marks) -> Iterator[Answer]:
    """Yield the answer for each frame [t, side, side, 3] of a clip whose first one is marked. No gradients."""
    memory = Memory(tracker, min(len(frames), 16) - 1)
    for t, picture in enumerate(frames):
        levels, _ = tracker.encode(torch.from_numpy(batches.frame(picture))[None])
        own = levels.of(torch.zeros(len(marks.points), dtype=torch.int64))
        if t:
            answer = unprompted(tracker, own, memory)
        else:
            answer = tracker.decode(own, tracker.without_memory(own.coarse), marks.points, marks.labels)
        memory.add(own.coarse, answer, (answer.present > 0).float(), binary=t == 0)
        yield answer


def on_clips(learner: Learner, data: batches.Clips, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss on clips: prompted in the first frame, by a click, a box or a mask, then tracked."""
    tracker = learner.tracker
    frames, count = data.images.shape[:2]
    levels, _ = tracker.encode(torch.from_numpy(data.images).flatten(0, 1))
    clip = torch.from_numpy(data.clip)
    coverage, visible = torch.from_numpy(data.coverage), torch.from_numpy(data.visible)
    # With pointers alone colours can be followed: where these are not read, memories have to be.
    memory = Memory(tracker, int(rng.integers(frames, 17)) - 1, pointing=rng.random() < POINTING)
    by_mask = rng.random() < 1 / 3
    parts = []
    for t in range(frames):
        own = levels.of(t * count + clip)
        if t:
            answer = unprompted(tracker, own, memory)
        elif by_mask:
            given = functional.interpolate(coverage[0][:, None], (tracker.size, tracker.size), mode="nearest")
            answer = tracker.from_mask(own, (given > 0.5).float())
        else:
            marks = clicks(data.masks[0], rng) if rng.random() < 0.5 else boxes(data.masks[0], rng)
            answer = tracker.decode(own, tracker.without_memory(own.coarse), marks.points, marks.labels)
        if t or not by_mask:
            parts.append(answer_losses(answer, coverage[t], visible[t]))
        if t + 1 < frames:
            memory.add(own.coarse, answer, visible[t].float()[:, None], binary=t == 0 and not by_mask)
    return total(parts)
