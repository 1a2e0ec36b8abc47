"""Takes texts that are looked for in a clip, returns what a detector and a loop read of them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sam3_build.documents import value_of
from sam3_build.errors import BuildError, Keys
from sam3_build.params import SampleParams
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.clips import Clip
from sam3_build.pipeline.text import text_reader, tokens
from sam3_build.pipeline.word_settings import WordSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from sam3_build.pipeline.chain import Arrays

    Array = NDArray[np.generic]

# The label of a box that counts as absent: the geometry encoder then gives its CLS token alone.
IGNORED_LABEL = -10


@dataclass(frozen=True)
class TextOnFrame:
    """A text, from the first frame of a clip on."""

    frame: int
    object: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class TextPrompts:
    """What may be asked of a clip: one or several texts, each for all objects that it means."""

    prompts: tuple[TextOnFrame, ...] = ()


def arrays(request: PromptRequest, asked: object, dims: Mapping[str, int]) -> dict[str, Array]:
    """Return texts as the text encoder and `word_tracking` read them. BuildError when one is wrong.

    asked: TextPrompts; dims: the sizes text_len and image_size of the networks
    """
    import numpy as np

    assert request.tokenizer is not None
    reader, rows = text_reader(request.tokenizer), []
    for prompt in cast("TextPrompts", asked).prompts:
        _check(prompt)
        rows.append(tokens(str(prompt.text), reader, dims["text_len"]))
    return {
        "input_ids": np.array([ids for ids, _ in rows], np.int64),
        "attention_mask": np.array([mask for _, mask in rows], np.int64),
        "input_boxes": np.zeros((1, 1, 4), np.float32),
        "input_boxes_labels": np.full((1, 1), IGNORED_LABEL, np.int64),
        # Meta's code reads the CLS token also where there are no boxes.
        "geometry_counts": np.array(request.reference == "meta"),
        "word_settings": WordSettings.of(request.config).array(),
        "image_size": np.array(dims["image_size"], np.int64),
    }


def cases(request: PromptRequest, dims: Mapping[str, int], frame: Callable[[Image.Image], Arrays]) -> Iterator[Case]:
    """Yield a case for each clip. frame: makes what is given of one; BuildError as for `arrays`."""
    for i, sample in enumerate(request.samples):
        yield Case(
            name=f"clip{sample.number}",
            samples=(i,),
            arrays=arrays(request, value_of(TextPrompts, sample.prompts), dims),
            frames=(frame(picture) for picture in Clip.of(sample, request.files)),
        )


def problems(samples: Sequence[SampleParams], tokenizer: Path | None) -> list[tuple[Keys, str]]:
    """Return all that is wrong with the texts of clips, and where."""
    found: list[tuple[Keys, str]] = []
    for sample in samples:
        for i, prompt in enumerate(value_of(TextPrompts, sample.prompts).prompts):
            try:
                _check(prompt)
                if tokenizer:
                    tokens(str(prompt.text), text_reader(tokenizer), None)
            except BuildError as error:
                found.append((("samples", sample.number, "prompts", i), str(error)))
    return found


def _check(prompt: TextOnFrame) -> None:
    if prompt.text is None or not prompt.text.strip():
        raise BuildError("has no text: say what to look for")
    if prompt.frame:
        raise BuildError(f"is on frame {prompt.frame}; a text is looked for in the whole clip: give frame 0")
    if prompt.object is not None:
        raise BuildError(f"names object {prompt.object}; a text may find several, which are numbered from 0 on")
