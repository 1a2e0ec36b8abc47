"""What a predictor of SAM 2's kind answers to prompts on a frame, or from memory, and what it remembers. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, ClassVar

from sam3_build.pipeline.loop import LoopNetwork
from sam3_build.pipeline.masks import enlarged, fed_back
from sam3_build.pipeline.memory_bank import Memory, bfloat16

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.chain import Arrays

    Array = NDArray[np.generic]

# A frame without a prompt is asked with one point that is none.
NO_POINT = -1

# What the memory encoder takes of a mask: the share of the object in a pixel, 0 to 1, by so much, plus so much.
SCALE, BIAS = 20.0, -10.0


@dataclass(frozen=True)
class Prompt:
    """What is asked of an object on a frame.

    points: [points, 2] in pixels of the network's input, labels: [points]; mask: [side, side], 0 and 1, instead
    """

    frame: int
    object: int
    points: Array
    labels: Array
    mask: Array | None = None


def prompts_of(given: Arrays) -> list[Prompt]:
    """Return the prompts of a case, in order.

    given: prompt_frames, prompt_objects and prompt_counts [prompts]; point_coords [points, 2] and point_labels
           [points], of all prompts one after another; where there are masks, prompt_masks [masks, side, side] and
           masked_prompts [masks], the prompt of each
    """
    ends = pairwise(accumulate(given["prompt_counts"].tolist(), initial=0))
    numbered = zip(given["prompt_frames"].tolist(), given["prompt_objects"].tolist(), ends, strict=True)
    masked = given["masked_prompts"].tolist() if "masked_prompts" in given else []
    masks = {which: given["prompt_masks"][i] for i, which in enumerate(masked)}
    points, labels = given["point_coords"], given["point_labels"]
    return [
        Prompt(frame, which, points[start:end], labels[start:end], masks.get(i))
        for i, (frame, which, (start, end)) in enumerate(numbered)
    ]


@dataclass(frozen=True)
class Frame:
    """The networks, and what the vision encoder gave of a frame. What they answer of an object has no row axis."""

    networks: Mapping[str, LoopNetwork]
    encoded: Arrays

    # Of a mask that is given: whether its pointer is that of the best of several masks, and whether it is remembered
    # as it is, and not at the resolution of the decoder's masks.
    BEST_OF_MASK: ClassVar[bool] = False
    WHOLE_MASK: ClassVar[bool] = False

    def answers(
        self, prompts: Sequence[Prompt], features: Mapping[int, Array], found: Mapping[int, Array]
    ) -> dict[int, Arrays]:
        """Return object -> what the mask decoder gives of its prompts on this frame.

        More clicks on an object are taken together with those before them, and with the mask that these gave.

        features: object -> [hidden, side, side], with what is remembered of it; of the others, without memories
        found:    object -> mask logits [4 * side, 4 * side] that clicks correct
        """
        import numpy as np

        answers: dict[int, Arrays] = {}
        clicks: dict[int, tuple[Array, Array]] = {}
        for prompt in prompts:
            which = prompt.object
            if prompt.mask is not None:
                clicks.pop(which, None)
                answers[which] = self.of_mask(prompt.mask)
                continue
            points, labels = clicks.get(which, (prompt.points[:0], prompt.labels[:0]))
            clicks[which] = np.concatenate([points, prompt.points]), np.concatenate([labels, prompt.labels])
            before = answers[which]["pred_masks"] if which in answers else found.get(which)
            answers[which] = self.of_clicks(*clicks[which], before, features.get(which))
        return answers

    def of_clicks(self, points: Array, labels: Array, before: Array | None, features: Array | None = None) -> Arrays:
        """Return the answer to points [points, 2] and labels [points].

        before: logits of the mask so far; features: with what is remembered, in the place of those without memories
        """
        import numpy as np

        mask = None if before is None else fed_back(before.astype(np.float32))[None]
        looked_at = self.encoded["image_embeddings.2"] if features is None else features[None]
        kind = f"{len(labels)} points{'' if mask is None else ' and a mask'}"
        return next(self._decoded(looked_at, points[None], labels[None], mask, len(labels) <= 1, kind))

    def of_mask(self, mask: Array) -> Arrays:
        """Return the answer to a mask [side, side], 0 and 1: that mask, and the pointer that the decoder gives of it.

        The features have nothing in the place of a memory, as in Meta's code.
        """
        import numpy as np
        from PIL import Image

        logits = self.networks["mask_prompt"]({"masks": mask[None].astype(np.float32)})["input_masks"]
        points, labels = no_points(1)
        features = self.encoded["vision_features"]
        answer = next(self._decoded(features, points, labels, logits, self.BEST_OF_MASK, "mask"))
        full = mask.astype(np.float32) * np.float32(SCALE) + np.float32(BIAS)
        side = self.encoded["image_embeddings.0"].shape[-1]
        small = np.asarray(Image.fromarray(full).resize((side, side), Image.Resampling.BILINEAR), np.float32)
        return {
            **answer,
            "pred_masks": small,
            "high_res_masks": enlarged(full if self.WHOLE_MASK else small, (4 * side, 4 * side)),
            "object_score_logits": np.array([full.max()], np.float32),
            "iou_scores": np.ones(1, np.float32),
        }

    def tracked(self, group: Sequence[int], recalled: Arrays) -> dict[int, Arrays]:
        """Return object -> the answer from what is remembered of it. recalled: arrays of `memory_bank.alike`."""
        points, labels = no_points(len(group))
        answers = self._decoded(self.conditioned(recalled), points, labels, None, True, "")
        return dict(zip(group, answers, strict=True))

    def conditioned(self, recalled: Arrays) -> Array:
        """Return features [objects, hidden, side, side] with what is remembered of objects, of equally much each."""
        features = {"vision_features": self.encoded["vision_features"]}
        kind = "" if recalled["pointer_times"].size else "no pointers"
        return self.networks["memory_attention"](features | dict(recalled), kind=kind)["conditioned_features"]

    def memories(self, answers: Mapping[int, Arrays], *, binarize: bool) -> dict[int, Memory]:
        """Return object -> what is remembered of this frame. binarize: as of frames with prompts, else squashed."""
        import numpy as np

        if not answers:
            return {}
        masks, scores = (
            np.stack([answer[name] for answer in answers.values()]).astype(np.float32)
            for name in ("high_res_masks", "object_score_logits")
        )
        share = masks > 0 if binarize else 1 / (1 + np.exp(-np.clip(masks, -80, None)))
        encoded = self.networks["memory_encoder"](
            {
                "vision_features": self.encoded["vision_features"],
                "mask_for_memory": share.astype(np.float32) * np.float32(SCALE) + np.float32(BIAS),
                "object_score_logits": scores,
            },
            kind="binarized" if binarize else "",
        )
        features = bfloat16(encoded["memory_features"])
        return {
            # A copy: a row of an array keeps all of it.
            which: Memory(own.copy(), answer["object_pointer"])
            for own, (which, answer) in zip(features, answers.items(), strict=True)
        }

    def _decoded(
        self, features: Array, points: Array, labels: Array, masks: Array | None, several: bool, kind: str
    ) -> Iterator[Arrays]:
        """Yield an answer for each row of what is asked."""
        import numpy as np

        rows, side = len(labels), self.encoded["image_embeddings.0"].shape[-1]
        outputs = self.networks["mask_decoder"](
            {
                "image_embeddings.0": self.encoded["image_embeddings.0"],
                "image_embeddings.1": self.encoded["image_embeddings.1"],
                "conditioned_features": features,
                "input_points": points.astype(np.float32),
                "input_labels": labels.astype(np.int64),
                "input_masks": np.zeros((rows, side, side), np.float32) if masks is None else masks,
                "has_masks": np.full(rows, masks is not None),
                "multimask": np.full(rows, several),
            },
            kind=kind,
        )
        for row in range(rows):
            yield {name: array[row].copy() for name, array in outputs.items()}


def no_points(rows: int) -> tuple[Array, Array]:
    """Return points [rows, 1, 2] and labels [rows, 1] that ask nothing."""
    import numpy as np

    return np.zeros((rows, 1, 2), np.float32), np.full((rows, 1), NO_POINT, np.float32)
