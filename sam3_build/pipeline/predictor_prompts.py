"""Takes pictures, clips and prompts on them, returns the inputs of networks: a user's, and those parity is measured on.

For families whose pipelines are those of `predictor_networks`. A picture is squashed to the network's square,
bilinearly, and a frame of a clip bicubically, as Meta's code does; points and corners of boxes are in its pixels,
labelled 1 and 0, 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sam3_build.documents import value_of
from sam3_build.errors import BuildError, InputError, Keys
from sam3_build.params import SampleParams
from sam3_build.pipeline import images, interactive
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.clips import Clip
from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.pipeline.predictor_cases import ClipPrompts, ObjectPrompt
from sam3_build.spec import Json, ModelFamily

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Array = NDArray[np.generic]


@dataclass(frozen=True)
class PredictorPrompts:
    """What `prompts.py` of such a family has, as methods.

    mean, std: of the channels' values, by which they are shifted and scaled
    frames:    layout -> what its encoder of frames calls them, where it is not `pixel_values`
    """

    family: ModelFamily
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frames: Mapping[str, str] = field(default_factory=dict)

    def make_cases(self, request: PromptRequest) -> Iterator[Case]:
        """Yield the cases of `family.case_shapes` as arrays; of a clip, also its objects in another order.

        InputError when `problems` finds any.
        """
        if request.pipeline != "video":
            return interactive.picture_cases(
                request, self.family, ObjectPrompts, self.picture_arrays, self.prompt_arrays
            )
        numbered = [(request.pipeline, sample) for sample in request.samples]
        if faults := self.problems(numbered, None, request.files, request.config):
            raise InputError(faults)
        return self._clips(request)

    def _clips(self, request: PromptRequest) -> Iterator[Case]:
        pixels = self.frames.get(request.layout, "pixel_values")
        side = self.family.static_dims(request.config)["image_size"]
        for i, sample in enumerate(request.samples):
            clip, name = Clip.of(sample, request.files), f"clip{sample.number}"
            first = clip[0]
            yield Case(
                name=f"{name}.reordered" if sample.is_reordered else name,
                samples=(i,),
                arrays=self.clip_arrays(request, value_of(ClipPrompts, sample.prompts), (first.height, first.width)),
                frames=({pixels: self._frame(frame, side)} for frame in clip),
                like=name if sample.is_reordered else "",
            )

    def picture_arrays(self, picture: Image.Image, config: Mapping[str, Json]) -> dict[str, Array]:
        """Return what a picture alone gives: pixel_values [1, 3, size, size] float32."""
        side = self.family.static_dims(config)["image_size"]
        return {"pixel_values": images.network_input(picture, (side, side), self.mean, self.std)[None]}

    def prompt_arrays(
        self, request: PromptRequest, prompts: Sequence[object], size: tuple[int, int]
    ) -> dict[str, Array]:
        """Return what prompts on one picture give, a row for each. BuildError when one is wrong.

        request: without samples; prompts: ObjectPrompts; size: height and width of the picture
        One point alone may mean several objects: of these the best mask is taken.
        """
        import numpy as np

        asked = [prompt for prompt in prompts if isinstance(prompt, ObjectPrompts)]
        for prompt in asked:
            interactive.check(prompt, size)
        dims = self.family.static_dims(request.config)
        side, scale = dims["grid_4"], (dims["image_size"] / size[1], dims["image_size"] / size[0])
        clicks = [interactive.clicks(prompt) for prompt in asked]
        rows = [own or [(0.0, 0.0, interactive.NO_POINT)] for own in clicks]
        points, labels = interactive.click_arrays(rows, scale)
        logits = [interactive.earlier_mask(prompt.mask, request, size, (side, side), side) for prompt in asked]
        return {
            "input_points": points,
            "input_labels": labels.astype(np.int64),
            "input_masks": np.stack(logits),
            "has_masks": np.array([prompt.mask is not None for prompt in asked]),
            "multimask": np.array([len(own) <= 1 for own in clicks]),
        }

    def frame_arrays(self, frame: Image.Image, config: Mapping[str, Json]) -> dict[str, Array]:
        """Return what a frame alone gives, in the layout `predictor`: pixel_values [1, 3, size, size] float32."""
        return {"pixel_values": self._frame(frame, self.family.static_dims(config)["image_size"])}

    def _frame(self, frame: Image.Image, side: int) -> Array:
        return images.frame_input(frame, (side, side), self.mean, self.std)[None]

    def clip_arrays(self, request: PromptRequest, asked: object, size: tuple[int, int]) -> dict[str, Array]:
        """Return prompts on frames as `pipeline/tracked_frame.prompts_of` reads them. BuildError when one is wrong.

        request: its samples are not read; asked: ClipPrompts; size: of the frames, height and width
        Prompts of unequal numbers of points are not filled up: a point that is none changes the answer.
        """
        import numpy as np

        prompts, files = cast("ClipPrompts", asked).prompts, request.files
        for prompt in prompts:
            check(prompt, files, size)
        side = self.family.static_dims(request.config)["image_size"]
        clicks = [interactive.clicks(prompt) for prompt in prompts]
        points = np.array([click for own in clicks for click in own], np.float64).reshape(-1, 3)
        masks = {i: interactive.mask_of(prompt.mask, files, size) for i, prompt in enumerate(prompts) if prompt.mask}
        height, width = size
        arrays: dict[str, Array] = {
            "prompt_frames": np.array([prompt.frame for prompt in prompts], np.int64),
            "prompt_objects": np.array([prompt.object for prompt in prompts], np.int64),
            "prompt_counts": np.array([len(own) for own in clicks], np.int64),
            "point_coords": (points[:, :2] * (side / width, side / height)).astype(np.float32),
            "point_labels": points[:, 2].astype(np.float32),
        }
        if masks:
            squashed = [_squashed(mask, side) for mask in masks.values() if mask is not None]
            arrays |= {"prompt_masks": np.stack(squashed), "masked_prompts": np.array(list(masks), np.int64)}
        return arrays

    def problems(
        self,
        samples: Sequence[tuple[str, SampleParams]],
        tokenizer: Path | None,
        files: Mapping[str, Path],
        config: Mapping[str, Json] | None,
    ) -> list[tuple[Keys, str]]:
        """Return all that is wrong with pictures, clips and what is asked of them, and where."""
        pictures = [(pipeline, sample) for pipeline, sample in samples if pipeline != "video"]
        faults = interactive.problems(pictures, tokenizer, files, config)
        for sample in (sample for pipeline, sample in samples if pipeline == "video"):
            at: Keys = ("samples", sample.number)
            sizes: set[tuple[int, int]] = set()
            with _collecting(faults, *at, "video"):
                sizes = {(frame.height, frame.width) for frame in Clip.of(sample, files)}
                if len(sizes) > 1:
                    shown = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
                    raise BuildError(f"has frames of several sizes: {shown}; a clip has one")
            for i, prompt in enumerate(value_of(ClipPrompts, sample.prompts).prompts):
                with _collecting(faults, *at, "prompts", i):
                    for size in sizes:
                        check(prompt, files, size)
        return faults


def check(prompt: ObjectPrompt, files: Mapping[str, Path], size: tuple[int, int]) -> None:
    """Refuse a prompt that is none for an object on a frame of a size (height, width). BuildError says why."""
    interactive.check(prompt, size, "its frame")
    mask = interactive.mask_of(prompt.mask, files, size)
    if mask is not None and not mask.any():
        raise BuildError(f"{files[str(prompt.mask)].name} is black: it marks no object")
    if prompt.mask and (prompt.points or prompt.boxes):
        raise BuildError("has a mask, and points or a box beside it; a mask on a frame is the answer itself")


@contextmanager
def _collecting(faults: list[tuple[Keys, str]], *keys: str | int) -> Iterator[None]:
    try:
        yield
    except (BuildError, OSError) as error:
        faults.append((keys, str(error)))


def _squashed(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Return [side, side] float32, 1 where at least half of what a pixel stands for is inside."""
    import numpy as np
    from PIL import Image

    share = Image.fromarray(mask.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    return (np.asarray(share) >= 0.5).astype(np.float32)
