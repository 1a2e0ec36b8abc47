"""What samples and prompts become: as SAM 3's, but that texts are padded with token 0, as the students were trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import Keys
from sam3_build.families.efficientsam3.family import CLICKS, FAMILY
from sam3_build.params import SampleParams
from sam3_build.pipeline import interactive
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.click_prompts import ClickPrompts
from sam3_build.pipeline.concept_prompts import ConceptPrompts
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Array = NDArray[np.generic]

OF_WORDS, OF_CLICKS = ConceptPrompts(FAMILY, pad_id=0), ClickPrompts(FAMILY)


def _of(request: PromptRequest) -> ConceptPrompts | ClickPrompts:
    return OF_CLICKS if request.layout in CLICKS else OF_WORDS


def make_cases(request: PromptRequest) -> Iterator[Case]:
    """Yield the cases of `family.cases` as arrays. InputError when `problems` finds any."""
    return _of(request).make_cases(request)


def prompt_arrays(request: PromptRequest, prompts: Sequence[object], size: tuple[int, int]) -> dict[str, Array]:
    """Return what prompts on one picture give, a row for each. BuildError when one is wrong. size: height and width."""
    return _of(request).prompt_arrays(request, prompts, size)


def picture_arrays(picture: Image.Image, config: Mapping[str, Json]) -> dict[str, Array]:
    """Return what a picture alone gives, under both names that encoders have for it: [1, 3, size, size] float32."""
    (pixels,) = OF_WORDS.picture_arrays(picture, config).values()
    return {"images": pixels, "pixel_values": pixels}


def problems(
    samples: Sequence[tuple[str, SampleParams]],
    tokenizer: Path | None,
    files: Mapping[str, Path],
    config: Mapping[str, Json] | None,
) -> list[tuple[Keys, str]]:
    """Return all that is wrong with pictures and what is asked of them, and where."""
    clicked = [each for each in samples if each[0] == "interactive"]
    words = [each for each in samples if each[0] != "interactive"]
    return [
        *OF_WORDS.problems(words, tokenizer, files, config),
        *interactive.problems(clicked, tokenizer, files, config),
    ]
