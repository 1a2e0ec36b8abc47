"""Takes pictures, texts and boxes, returns the inputs of networks: a user's, and those that parity is measured on.

For families whose networks are those of `concept_networks`. Conventions of SAM 3: RGB squashed to the network's size,
values -1 to 1; text padded to a fixed length; boxes as centre, width and height relative to the picture; labels 1
positive, 0 negative, -10 ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.documents import value_of
from sam3_build.errors import BuildError, InputError, Keys, did_you_mean
from sam3_build.params import SampleParams
from sam3_build.pipeline import images as picture_files
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.concept_cases import ImagePrompts, case_shapes
from sam3_build.pipeline.concept_networks import IGNORED_LABEL
from sam3_build.pipeline.prompts import Box
from sam3_build.pipeline.text import text_reader, tokens
from sam3_build.spec import CaseRequest, CaseShape, Json, ModelFamily

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from tokenizers import Tokenizer

    Array = NDArray[np.generic]

# What SAM 3 reads when boxes come without words.
TEXT_OF_BOXES = "visual"

# Values from -1 to 1.
MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class ConceptPrompts:
    """What `prompts.py` of such a family has, as methods.

    pad_id: the token that fills a text up; None for the one that the tokenizer file or CLIP has for that
    """

    family: ModelFamily
    pad_id: int | None = None

    def make_cases(self, request: PromptRequest) -> Iterator[Case]:
        """Yield the cases of `case_shapes` as arrays: every sample alone, then in batches with `padding` ignored boxes.

        InputError when `problems` finds any.
        """
        if request.reference not in self.family.references:
            raise BuildError(
                f"no reference named {request.reference!r}{did_you_mean(request.reference, self.family.references)}"
            )
        if faults := self.problems(
            [(request.pipeline, s) for s in request.samples], request.tokenizer, request.files, request.config
        ):
            raise InputError(faults)
        assert request.tokenizer is not None
        reader, dims = text_reader(request.tokenizer), self.family.static_dims(request.config)
        asked = [value_of(ImagePrompts, sample.prompts) for sample in request.samples]
        rows = [
            self._row(prompts, request.files[sample.pictures[0]], reader, dims)
            for sample, prompts in zip(request.samples, asked, strict=True)
        ]
        shapes = case_shapes(
            CaseRequest(
                request.layout,
                request.pipeline,
                request.reference,
                asked,
                [sample.number for sample in request.samples],
                request.padding,
                dims,
            )
        )
        return (_case(shape, rows) for shape in shapes)

    def picture_arrays(self, picture: Image.Image, config: Mapping[str, Json]) -> dict[str, Array]:
        """Return what a picture alone gives, one row of each: images [1, 3, height, width] float32."""
        return {"images": _pixels(picture, self.family.static_dims(config))[None]}

    def prompt_arrays(
        self, request: PromptRequest, prompts: Sequence[object], size: tuple[int, int]
    ) -> dict[str, Array]:
        """Return what prompts on one picture give, a row for each.

        request: without samples and files
        prompts: ImagePrompts; boxes in pixels of the picture. size: its height and width
        BuildError says what is wrong, and in which box.
        """
        asked = [prompt for prompt in prompts if isinstance(prompt, ImagePrompts)]
        assert request.tokenizer is not None and len(asked) == len(prompts)
        reader, dims = text_reader(request.tokenizer), self.family.static_dims(request.config)
        height, width = size
        rows = []
        for prompt in asked:
            ids, mask = tokens(_text(prompt), reader, dims["text_len"], self.pad_id)
            boxes = []
            for i, box in enumerate(prompt.boxes):
                try:
                    boxes.append(_relative(box, (width, height), "the picture"))
                except BuildError as error:
                    raise BuildError(f"boxes[{i}]: {error}") from error
            rows.append(PromptRow(ids, mask, boxes, [box.label for box in prompt.boxes]))
        # A case of its own has as many boxes as the network needs: at least one, ignored, where it always reads some.
        shapes = case_shapes(
            CaseRequest(request.layout, request.pipeline, request.reference, asked, range(len(asked)), 0, dims)
        )
        return _prompt_arrays(rows, max(shape.sizes.get("num_boxes", 0) for shape in shapes[: len(asked)]))

    def problems(
        self,
        samples: Sequence[tuple[str, SampleParams]],
        tokenizer: Path | None,
        files: Mapping[str, Path],
        config: Mapping[str, Json] | None,
    ) -> list[tuple[Keys, str]]:
        """Return all that is wrong with texts, pictures and boxes, and where: `("samples", 1, "boxes")`.

        What is not known is not judged: words without a tokenizer, a text's length without a config that says it.

        samples: the pipeline of each, and the sample
        """
        faults: list[tuple[Keys, str]] = []
        reader, longest = None, self._text_len(config)
        with _collecting(faults, "tokenizer"):
            reader = text_reader(tokenizer) if tokenizer else None
        size = cache(lambda role: _picture(files[role]).size)
        for _, sample in samples:
            prompts, (picture,) = value_of(ImagePrompts, sample.prompts), sample.pictures
            with _collecting(faults, "samples", sample.number, "text"):
                if reader:
                    tokens(_text(prompts), reader, longest, self.pad_id)
            with _collecting(faults, "samples", sample.number, "image"):
                size(picture)
                for box in prompts.boxes:
                    with _collecting(faults, "samples", sample.number, "boxes"):
                        _relative(box, size(picture), files[picture].name)
        return faults

    def _row(self, prompts: ImagePrompts, file: Path, reader: Tokenizer, dims: Mapping[str, int]) -> SampleArrays:
        ids, mask = tokens(_text(prompts), reader, dims["text_len"], self.pad_id)
        picture = _picture(file)
        boxes = [_relative(box, picture.size, file.name) for box in prompts.boxes]
        return SampleArrays(ids, mask, boxes, [box.label for box in prompts.boxes], _pixels(picture, dims))

    def _text_len(self, config: Mapping[str, Json] | None) -> int | None:
        """Return how many tokens the text encoder reads; None where the config leaves sizes to the defaults."""
        detector = (config or {}).get("detector_config")  # a video model's config has the image model's inside
        try:
            return self.family.static_dims(detector if isinstance(detector, Mapping) else config or {})["text_len"]
        except BuildError:
            return None  # the `checkpoint` action completes it, or says what is wrong with it


@contextmanager
def _collecting(faults: list[tuple[Keys, str]], *keys: str | int) -> Iterator[None]:
    try:
        yield
    except BuildError as error:
        faults.append((keys, str(error)))


@dataclass(frozen=True)
class PromptRow:
    """One prompt's inputs without the batch dim and without padding of boxes."""

    input_ids: Sequence[int]
    attention_mask: Sequence[int]
    boxes: Sequence[tuple[float, float, float, float]]
    labels: Sequence[int]


@dataclass(frozen=True)
class SampleArrays(PromptRow):
    """One sample's inputs: its prompt's, and the picture."""

    image: Array


def _text(prompts: ImagePrompts) -> str:
    return TEXT_OF_BOXES if prompts.text is None else prompts.text


def _picture(file: Path) -> Image.Image:
    try:
        return picture_files.read(file)
    except OSError as error:
        raise BuildError(f"{file.name} cannot be read: {error.strerror}") from error


def _pixels(picture: Image.Image, dims: Mapping[str, int]) -> NDArray[np.float32]:
    """Return [3, height, width]."""
    return picture_files.network_input(picture, (dims["image_height"], dims["image_width"]), MEAN, STD)


def _relative(box: Box, size: tuple[int, int], picture: str) -> tuple[float, float, float, float]:
    """Return the box as centre and size relative to its picture; it may leave the picture, but not lie outside."""
    (x, y, w, h), (width, height) = (box.x, box.y, box.w, box.h), size
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise BuildError(
            f"the box {x:g},{y:g},{w:g},{h:g} lies outside {picture}, which is {width} x {height} pixels; "
            "a box is x,y,width,height in pixels from the top left corner"
        )
    return (x + w / 2) / width, (y + h / 2) / height, w / width, h / height


def _case(shape: CaseShape, rows: Sequence[SampleArrays]) -> Case:
    import numpy as np

    chosen = [rows[i] for i in shape.samples]
    arrays = _prompt_arrays(chosen, shape.sizes.get("num_boxes", 0))
    return Case(shape.name, shape.samples, {"images": np.stack([r.image for r in chosen]), **arrays})


def _prompt_arrays(rows: Sequence[PromptRow], boxes: int) -> dict[str, Array]:
    """Return what prompts give, batch first; a row is filled up to `boxes` boxes with ignored ones."""
    import numpy as np

    arrays: dict[str, Array] = {
        "input_ids": np.array([r.input_ids for r in rows], np.int64),
        "attention_mask": np.array([r.attention_mask for r in rows], np.int64),
    }
    if boxes:
        padding = [boxes - len(r.labels) for r in rows]
        empty = (0.0, 0.0, 0.0, 0.0)
        padded = [[*r.boxes, *[empty] * n] for r, n in zip(rows, padding, strict=True)]
        labels = [[*r.labels, *[IGNORED_LABEL] * n] for r, n in zip(rows, padding, strict=True)]
        arrays["input_boxes"] = np.array(padded, np.float32)
        arrays["input_boxes_labels"] = np.array(labels, np.int64)
    return arrays
