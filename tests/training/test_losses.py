"""Matching, losses and the metrics that judge them: right on what is known, worse for planted errors."""

from __future__ import annotations

import numpy as np
import torch

from training import losses
from training.learning import Schedule
from training.matching import assign
from training.metrics import Tally, best_overlaps


def test_matching_takes_the_cheapest_pairs_and_only_wanted_things() -> None:
    costs = np.array([[[[1, 9], [2, 1], [0, 5]], [[3, 0], [1, 0], [2, 0]]]], np.float32)
    run, question, query, thing = assign(costs, np.array([2, 1]))
    assert list(zip(run, question, query, thing, strict=True)) == [(0, 0, 1, 1), (0, 0, 2, 0), (0, 1, 1, 0)]


def test_matching_nothing_gives_no_pairs() -> None:
    assert [len(index) for index in assign(np.zeros((2, 1, 3, 5), np.float32), np.array([0]))] == [0] * 4


def test_generalised_iou_is_known_for_same_apart_and_half() -> None:
    box = torch.tensor([0.5, 0.5, 0.2, 0.2])
    assert torch.isclose(losses.generalised_iou(box, box), torch.tensor(1.0))
    half = losses.generalised_iou(box, torch.tensor([0.5, 0.5, 0.2, 0.1]))
    assert torch.isclose(half, torch.tensor(0.5))
    # Two boxes of 0.2 with as much between them: nothing shared, a third of the hull empty.
    apart = losses.generalised_iou(box - torch.tensor([0.2, 0, 0, 0]), box + torch.tensor([0.2, 0, 0, 0]))
    assert torch.isclose(apart, torch.tensor(-1 / 3), atol=1e-6)


def test_losses_of_perfect_answers_are_almost_nothing_and_of_planted_errors_more() -> None:
    wanted = torch.zeros(1, 5, 4)
    wanted[0, 0] = torch.tensor([0.3, 0.3, 0.2, 0.2])
    counts = torch.tensor([1])
    logits = torch.full((1, 1, 3), -12.0)
    logits[0, 0, 2] = 12.0
    boxes = torch.full((1, 1, 3, 4), 0.5)
    boxes[0, 0, 2] = wanted[0, 0]

    def total(logits: torch.Tensor, boxes: torch.Tensor) -> float:
        pairs = losses.match(logits, boxes, wanted, counts)
        return sum(float(loss) for loss in losses.queries(logits, boxes, pairs, wanted, counts).values())

    perfect = total(logits, boxes)
    assert perfect < 1e-4
    assert total(logits, boxes + 0.05) > perfect + 0.1
    assert total(logits.roll(1, 2), boxes) > perfect + 0.1
    twice = logits.clone()
    twice[0, 0, 1] = 3.0
    assert total(twice, boxes) > perfect + 0.1


def test_classes_count_only_where_the_thing_is() -> None:
    nothing = losses.queries(
        torch.full((1, 1, 3), 5.0), torch.rand(1, 1, 3, 4), (torch.zeros(0, dtype=torch.int64),) * 4,
        torch.zeros(1, 5, 4), torch.tensor([0]),
    )  # fmt: skip
    assert all(float(loss) == 0 for loss in nothing.values())
    assert float(losses.presence(torch.tensor([[5.0]]), torch.tensor([0]))) > 4.9


def test_mask_losses_see_a_shift() -> None:
    wanted = torch.zeros(1, 84, 84)
    wanted[:, 20:60, 20:60] = 1
    logits = torch.full((1, 48, 48), -20.0)
    logits[:, 12:34, 12:34] = 20.0
    right = sum(float(loss) for loss in losses.masks(logits, wanted).values())
    shifted = sum(float(loss) for loss in losses.masks(logits.roll(6, 2), wanted).values())
    assert right < 1 < shifted


def test_kinds_are_judged_where_a_shape_covers_half_of_a_cell() -> None:
    said = torch.zeros(1, 4, 6)
    said[0, :, 1] = said[0, :, 4] = 20.0
    coverage = torch.zeros(1, 2, 2, 2)
    coverage[0, 1] = torch.tensor([[0.9, 0.4], [0.0, 0.0]])
    right = torch.tensor([[[0, 0], [1, 1]]])
    assert float(losses.kinds(said, right, coverage, 3)) < 1e-4
    assert float(losses.kinds(said, right.flip(1), coverage, 3)) > 10
    assert float(losses.kinds(said, right, 0 * coverage, 3)) == 0


def test_a_cell_answers_with_the_box_of_what_covers_it() -> None:
    wanted = torch.zeros(1, 5, 4)
    wanted[0, 0] = torch.tensor([0.5, 0.5, 0.4, 0.4])
    coverage = torch.zeros(1, 5, 2, 2)
    coverage[0, 0, 0, 0] = 0.9
    said = torch.full((1, 4, 5), -12.0)
    said[0, 0, 0] = 12.0
    # The first cell's centre is at a quarter: the box starts 0.05 right of and below it and ends 0.45 from it.
    reach = torch.tensor([-0.05, -0.05, 0.45, 0.45])
    said[0, 0, 1:] = torch.logit((reach + 0.1) / 0.7)
    counts = torch.tensor([1])
    assert float(losses.cells(said, wanted, counts, coverage, 2)) < 1e-3
    assert float(losses.cells(said.roll(1, 1), wanted, counts, coverage, 2)) > 1


def test_metrics_are_one_for_perfect_answers() -> None:
    masks = [np.eye(4, dtype=bool), np.eye(4, dtype=bool)[::-1]]
    tally = Tally()
    tally.add(masks[::-1], masks, present=True)
    tally.add([], [], present=False)
    assert tally.numbers() == {"iou": 1.0, "count": 1.0, "presence": 1.0}


def test_metrics_see_missed_doubled_shifted_and_invented_things() -> None:
    mask = np.zeros((6, 6), bool)
    mask[:, :3] = True
    other = ~mask
    assert best_overlaps([mask], [mask, other]) == [1.0, 0.0]
    assert best_overlaps([mask, mask], [mask]) == [1.0]
    assert best_overlaps([np.roll(mask, 1, 1)], [mask]) == [0.5]
    tally = Tally()
    tally.add([mask, mask], [mask], present=True)
    tally.add([mask], [], present=True)
    assert tally.numbers() == {"iou": 1.0, "count": 0.0, "presence": 0.5}


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    schedule = Schedule(steps=1000, fall=200, rise=100, peak=1e-3)
    rates = [schedule.rate(step) for step in range(1001)]
    assert rates[0] == 1e-5 and rates[500] == 1e-3 and rates[1000] == 0
    assert rates[:200] == sorted(rates[:200])
    assert rates[200:] == sorted(rates[200:], reverse=True)
