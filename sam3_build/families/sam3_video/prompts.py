"""What samples and prompts become: values of pictures run from -1 to 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import InputError, Keys
from sam3_build.families.sam3_video.family import FAMILY
from sam3_build.params import SampleParams
from sam3_build.pipeline import word_prompts
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.predictor_prompts import PredictorPrompts
from sam3_build.pipeline.word_prompts import TextPrompts
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

MARKS = PredictorPrompts(FAMILY, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
picture_arrays, prompt_arrays, frame_arrays = MARKS.picture_arrays, MARKS.prompt_arrays, MARKS.frame_arrays

WORDS = "text_video"


def make_cases(request: PromptRequest) -> Iterator[Case]:
    """Yield a case for each sample; InputError when `problems` finds any."""
    if request.pipeline != WORDS:
        return MARKS.make_cases(request)
    numbered = [(WORDS, sample) for sample in request.samples]
    if faults := problems(numbered, request.tokenizer, request.files, request.config):
        raise InputError(faults)
    dims = FAMILY.static_dims(request.config)
    return word_prompts.cases(request, dims, lambda picture: frame_arrays(picture, request.config))


def clip_arrays(request: PromptRequest, asked: object, size: tuple[int, int]) -> dict[str, Array]:
    """Return prompts on a clip as its loop reads them. BuildError when one is wrong.

    request: its samples are not read; asked: ClipPrompts or TextPrompts; size: of the frames, height and width
    """
    if isinstance(asked, TextPrompts):
        return word_prompts.arrays(request, asked, FAMILY.static_dims(request.config))
    return MARKS.clip_arrays(request, asked, size)


def problems(
    samples: Sequence[tuple[str, SampleParams]],
    tokenizer: Path | None,
    files: Mapping[str, Path],
    config: Mapping[str, Json] | None,
) -> list[tuple[Keys, str]]:
    """Return all that is wrong with pictures, clips and what is asked of them, and where."""
    marked = [(pipeline, sample) for pipeline, sample in samples if pipeline != WORDS]
    texts = [sample for pipeline, sample in samples if pipeline == WORDS]
    return [*MARKS.problems(marked, tokenizer, files, config), *word_prompts.problems(texts, tokenizer)]
