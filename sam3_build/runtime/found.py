"""What was found in a picture: numpy arrays, and the forms in which other programs take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

from sam3_build.errors import BuildError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from supervision import Detections

    from sam3_build.pipeline.instances import Instances
    from sam3_build.pipeline.masks import Masks


class Rle(TypedDict):
    """A mask as COCO has it: height and width, and the lengths of runs down the columns, as a string."""

    size: list[int]
    counts: str


class Annotation(TypedDict):
    """One instance of a COCO file of results. bbox: x, y, width, height in pixels."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float
    area: int
    segmentation: Rle


@dataclass(frozen=True)
class Found:
    """All instances of one picture, those of the first prompt first; of each, in the order of the model's queries.

    masks:   [n, height, width] bool
    boxes:   [n, 4] float32, left, top, right, bottom in pixels
    scores:  [n] float32, 0 to 1
    labels:  the text of each one's prompt; `object` of prompts without a text
    prompts: [n] int64, the position of each one's prompt
    picture: [height, width, 3] uint8, RGB
    texts:   the label of every prompt
    logits:  [n, h, w] float32, what `previous` takes of each; None of a model that takes no earlier mask
    """

    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: list[str]
    prompts: NDArray[np.int64]
    picture: NDArray[np.uint8]
    texts: tuple[str, ...]
    logits: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return how many instances there are."""
        return len(self.scores)

    def picked(self, kept: NDArray[np.int64]) -> Found:
        """Return some of the instances, by their positions, in this order."""
        return replace(
            self,
            masks=self.masks[kept],
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=[self.labels[i] for i in kept.tolist()],
            prompts=self.prompts[kept],
            logits=None if self.logits is None else self.logits[kept],
        )

    def overlay(self) -> NDArray[np.uint8]:
        """Return the picture with what was found drawn over it."""
        from sam3_build.drawing.instances import drawn

        return drawn(self.picture, self.masks, self.boxes, self.prompts)

    def save(self, path: str | Path) -> None:
        """Write the overlay. BuildError for a suffix that no picture has."""
        from sam3_build.folders import write_atomically

        write_atomically(Path(path), encoded(self.overlay(), Path(path)))

    def polygons(self, tolerance: float = 0.0) -> list[list[NDArray[np.int32]]]:
        """Return the outlines of each instance's parts, [points, 2], x and y in pixels. Holes are not in them.

        tolerance: by how many pixels an outline of fewer points may be off, as Douglas and Peucker simplify it
        """
        import cv2
        import numpy as np

        found = []
        for mask in self.masks:
            parts, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            simple = [cv2.approxPolyDP(part, tolerance, closed=True) for part in parts] if tolerance else parts
            found.append([part.reshape(-1, 2) for part in simple])
        return found

    def rle(self) -> list[Rle]:
        """Return each mask as COCO's compressed run lengths."""
        return [rle(mask) for mask in self.masks]

    def to_supervision(self) -> Detections:
        """Return the instances as supervision's Detections; class_id is the position of a prompt, from 0.

        BuildError when supervision is not installed.
        """
        if not find_spec("supervision"):
            raise BuildError("supervision is not installed: pip install 'sam3-build[supervision]'")
        import numpy as np
        import supervision

        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.prompts,
            data={"class_name": np.array(self.labels, dtype=str)},
        )

    def to_coco(self, image_id: int) -> list[Annotation]:
        """Return the instances as COCO results. A category is the position of a prompt, from 1."""
        return [
            {
                "image_id": image_id,
                "category_id": int(prompt) + 1,
                "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                "score": float(score),
                "area": int(mask.sum()),
                "segmentation": own,
            }
            for mask, (x0, y0, x1, y1), score, prompt, own in zip(
                self.masks, self.boxes, self.scores, self.prompts, self.rle(), strict=True
            )
        ]


def _instances(result: object, multimask: bool) -> Instances:
    return cast("Instances", result)


def _own_mask(result: object, multimask: bool) -> Instances:
    """Return the mask that a prompt's answer is, or all, as instances; none of an object that is not visible."""
    import numpy as np

    from sam3_build.pipeline.instances import Instances
    from sam3_build.pipeline.masks import boxes_around

    masks = cast("Masks", result)
    offered = range(len(masks.scores)) if multimask else [masks.chosen]
    taken = np.array(offered if masks.visible else [], np.int64)
    logits = None if masks.logits is None else masks.logits[taken]
    return Instances(masks.scores[taken], boxes_around(masks.masks[taken]), masks.masks[taken], logits=logits)


# Kind of result -> what makes instances of what a family's `find` gives of a prompt, and whether all masks are wanted.
KINDS: Mapping[str, Callable[[object, bool], Instances]] = {"instances": _instances, "masks": _own_mask}


def joined(results: Sequence[Instances], texts: Sequence[str], picture: NDArray[np.uint8]) -> Found:
    """Return the results of several prompts on one picture as one."""
    import numpy as np

    logits = [r.logits for r in results if r.logits is not None]
    prompts = np.repeat(np.arange(len(results)), [len(r.scores) for r in results])
    return Found(
        masks=np.concatenate([r.masks for r in results]),
        boxes=np.concatenate([r.boxes for r in results]),
        scores=np.concatenate([r.scores for r in results]),
        labels=[texts[i] for i in prompts.tolist()],
        prompts=prompts,
        picture=picture,
        texts=tuple(texts),
        logits=np.concatenate(logits) if len(logits) == len(results) else None,
    )


def encoded(picture: NDArray[np.uint8], path: Path) -> bytes:
    """Return a picture as the bytes of a file of this name. BuildError for a suffix that no picture has."""
    from io import BytesIO

    from PIL import Image

    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise BuildError(f"{path.name}: no picture is written with the suffix {path.suffix!r}; use .png or .jpg")
    out = BytesIO()
    Image.fromarray(picture).save(out, kind)
    return out.getvalue()


def rle(mask: NDArray[np.bool_]) -> Rle:
    """Return a mask [height, width] as COCO's compressed run lengths."""
    return {"size": list(mask.shape), "counts": _compressed(_runs(mask))}


def _runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of runs down the columns, of what is outside first."""
    import numpy as np

    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0], ends, [flat.size]])
    lengths: list[int] = np.diff(edges).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def _compressed(runs: Sequence[int]) -> str:
    """Return run lengths as COCO writes them: each less the one but one before it, in groups of 5 bits, low ones first.

    Source: `rleToString` of cocoapi's maskApi.c.
    """
    characters = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            low, value = value & 0x1F, value >> 5
            more = value != (-1 if low & 0x10 else 0)
            characters.append(chr((low | (0x20 if more else 0)) + 48))
            if not more:
                break
    return "".join(characters)
