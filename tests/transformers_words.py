"""transformers' Sam3VideoModel, whose host code tests call: with a settings object in the place of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy import ndimage
from transformers.models.sam3_video import modeling_sam3_video as theirs

from sam3_build.pipeline.word_settings import WordSettings

EIGHT = np.ones((3, 3), int)


def like_a_model(settings: WordSettings) -> Any:
    """Return what their methods take as `self`."""
    found = SimpleNamespace(**asdict(settings))
    for name in (
        "_get_objects_to_suppress_based_on_most_recently_occluded",
        "_suppress_object_pw_area_shrinkage_impl",
        "_apply_non_overlapping_constraints",
        "_suppress_shrunk_masks",
    ):
        setattr(found, name, getattr(theirs.Sam3VideoModel, name).__get__(found))
    return found


def _components(mask: torch.Tensor, get_counts: bool) -> tuple[torch.Tensor, torch.Tensor]:
    labels, counts = np.zeros(mask.shape, np.int32), np.zeros(mask.shape, np.int32)
    for at in np.ndindex(*mask.shape[:2]):
        labels[at], _ = ndimage.label(mask[at].numpy(), EIGHT)
        counts[at] = np.where(labels[at] > 0, np.bincount(labels[at].ravel())[labels[at]], 0)
    return torch.from_numpy(labels), torch.from_numpy(counts)


def _nms(ious: torch.Tensor, scores: torch.Tensor, limit: float, use_iou_matrix: bool) -> torch.Tensor:
    left, kept = scores.argsort(descending=True, stable=True).tolist(), []
    while left:
        kept.append(left.pop(0))
        left = [i for i in left if not ious[kept[-1], i] > limit]
    return torch.tensor(kept)


@contextmanager
def with_kernels() -> Iterator[None]:
    """Give them what the package `kernels` has on a GPU: components joined by corners too, and greedy NMS."""
    with patch.object(theirs, "cv_utils_kernel", SimpleNamespace(cc_2d=_components, generic_nms=_nms)):
        yield
