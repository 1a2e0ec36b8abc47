"""The losses of a network on a batch, the learning rate's schedule, and the moving average of weights. No files."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from training import losses
from training.batches import Batch, Glances
from training.network import Learner
from training.scenes import COLOURS


@dataclass(frozen=True)
class Schedule:
    """How fast to learn: a rise, a plateau, and a fall to nothing over the last `fall` steps."""

    steps: int
    fall: int
    rise: int = 500
    peak: float = 1e-3

    def rate(self, step: int) -> float:
        """Return the learning rate of `step`."""
        up = min(1.0, (step + 1) / self.rise)
        down = min(1.0, max(0, self.steps - step) / max(1, self.fall))
        return self.peak * up * (1 - math.cos(math.pi * down)) / 2


def tensors(batch: Batch | Glances) -> dict[str, Tensor]:
    """Return its arrays as torch tensors, not copied."""
    return {field.name: torch.from_numpy(getattr(batch, field.name)) for field in fields(batch)}


def judge(
    learner: Learner,
    data: dict[str, Tensor],
    aside: dict[str, Tensor],
    weights: losses.Weights,
    masked: float = 1.0,
) -> tuple[Tensor, dict[str, float]]:
    """Return the total loss of a batch `data` and of glances `aside`, and its parts, unweighted.

    Masks cost as much as all of the rest of an answer, so only a share `masked` of the answers is drawn as masks.
    """
    levels = learner.encode(data["images"])
    prompt, valid = learner.prompt(
        levels, data["picture"], data["text"], data["input_ids"], data["attention_mask"], data["boxes"], data["labels"],
        data["geometry"],
    )  # fmt: skip
    picture, wanted = data["picture"], data["wanted"]
    answers = learner.answer(levels[2][picture], levels[3][picture], prompt, valid)
    counts = (wanted >= 0).sum(1)

    layers, groups = answers.logits.shape[:2]
    logits, boxes = answers.logits.flatten(0, 1), answers.boxes.flatten(0, 1)
    pairs = losses.match(logits.detach(), boxes.detach(), data["wanted_boxes"], counts)
    parts = losses.queries(logits, boxes, pairs, data["wanted_boxes"], counts)
    parts = {name: loss / groups for name, loss in parts.items()}
    parts["presence"] = losses.presence(answers.presence, counts)

    present = (counts > 0).nonzero()[:, 0]
    present = present[torch.randperm(len(present))[: math.ceil(masked * len(present))]]
    instances, semantic = learner.masks(levels, picture, answers, present)
    run, question, query, thing = pairs
    place = torch.full_like(counts, -1)
    place[present] = torch.arange(len(present))
    own = (run == (layers - 1) * groups) & (place[question] >= 0)
    right = data["masks"][picture[question[own]], wanted[question[own], thing[own]]]
    parts |= losses.masks(instances[place[question[own]], query[own]], right)

    covered = data["masks"][picture[:, None], wanted.clamp(min=0)] * (wanted >= 0)[..., None, None]
    semantic_losses = losses.masks(semantic[:, 0], covered[present].amax(1))
    parts["semantic"] = semantic_losses["mask"] + semantic_losses["dice"]
    side = levels[2].shape[-1]
    coverage = functional.avg_pool2d(covered, covered.shape[-1] // side)
    parts["cells"] = losses.cells(learner.cell_head(answers.memory), data["wanted_boxes"], counts, coverage, side)
    seen = learner.glance(aside["images"])
    parts["sight"] = losses.cells(seen[..., :5], aside["boxes"], aside["count"], aside["masks"], side)
    parts["kinds"] = losses.kinds(seen[..., 5:], aside["kinds"], aside["masks"], len(COLOURS))
    total = sum((getattr(weights, name) * loss for name, loss in parts.items()), start=torch.zeros(()))
    return total, {name: float(loss.detach()) for name, loss in parts.items()}


class Average:
    """The moving average of a model's weights, which is what gets evaluated and kept."""

    def __init__(self, model: nn.Module, horizon: int) -> None:
        """Start with the weights as they are; later, the last `horizon` steps count for two thirds."""
        self.weights = {key: value.detach().clone() for key, value in model.named_parameters()}
        self.horizon = horizon

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights after `step`; over few steps at first, so that the start is soon forgotten."""
        share = max(1 / self.horizon, 1 / (1 + step / 5))
        values = [value.detach() for _, value in model.named_parameters()]
        torch._foreach_lerp_(list(self.weights.values()), values, share)
