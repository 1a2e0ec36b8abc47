"""A pipeline for clips whose networks are loaded: takes frames and prompts on them, returns what its loop gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sam3_build import registry
from sam3_build.documents import Json, document_of, value_of
from sam3_build.errors import BuildError
from sam3_build.model_format import ModelPipeline
from sam3_build.pipeline import chain
from sam3_build.runtime.choice import Choice
from sam3_build.runtime.folder import ModelFolder
from sam3_build.runtime.opened import OpenPipeline, Sessions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.loop import Finder, Follower, LoopNetwork
    from sam3_build.pipeline.tracks import Tracks
    from sam3_build.runtime.ask import Ask

# The logits of an object that is not in a frame, as networks have them.
ABSENT = -1024.0


def tracked(folder: ModelFolder) -> ModelPipeline | None:
    """Return the first pipeline that can be run frame by frame; None when there is none."""
    code = registry.family_code(folder.description.family)
    return next((p for p in folder.description.pipelines if len(p.loops) == 1 and code.tracker(p.loops[0].name)), None)


def finding(folder: ModelFolder) -> ModelPipeline | None:
    """Return the first pipeline that finds objects itself, frame by frame; None when there is none."""
    code = registry.family_code(folder.description.family)
    return next((p for p in folder.description.pipelines if len(p.loops) == 1 and code.finder(p.loops[0].name)), None)


class OpenLoop(OpenPipeline):
    """The networks of a pipeline with one loop, which is run frame by frame."""

    def __init__(
        self,
        folder: ModelFolder,
        pipeline: ModelPipeline,
        choice: Choice,
        sessions: Sessions,
        tokenizer: Path | None = None,
    ) -> None:
        """Open what is not open yet. pipeline: what `tracked` or `finding` gave."""
        super().__init__(folder, pipeline, choice, sessions, tokenizer=tokenizer)
        description = folder.description
        (self._loop,) = pipeline.loops
        self._code = registry.family_code(description.family)
        self._kind = self._code.family.laid_out(description.layout).pipeline(pipeline.name).prompts
        self._threshold = description.score_threshold
        self._in_loop = {name: _in_loop(run) for name, run in self._networks.items()}

    def frame(self, picture: Image.Image) -> Arrays:
        """Return what the loop gets of a frame."""
        arrays = self._host.frame_arrays(picture, self._request.config)
        computed = chain.run(self._components, self._steps, self._networks, arrays)
        found = chain.gather(self._loop.frames, self._loop.feeds, lambda step, name: computed[step].get(name))
        if found is None:
            raise BuildError(f"a frame lacks one of {', '.join(self._loop.frames)}")
        return found

    def result(self, outputs: Arrays, size: tuple[int, int]) -> Tracks:
        """Return the tracks of what a loop returns. size: height and width of the frames."""
        return cast("Tracks", self._code.results.find(outputs, size, self._threshold))


class OpenWords(OpenLoop):
    """A loop that finds what texts mean."""

    def finder(self, texts: Sequence[str], frames: int, size: tuple[int, int]) -> Finder:
        """Return the loop for one clip. frames: how many it has; 0 of a stream; size: their height and width.

        BuildError says which text is wrong.
        """
        import numpy as np

        prompts: list[Json] = [{"frame": 0, "text": text} for text in texts]
        arrays = self._host.clip_arrays(self._request, value_of(self._kind, {"prompts": prompts}), size)
        known = {chain.GIVEN: arrays, **chain.run(self._components, self._steps, self._networks, arrays)}
        each = {
            name: chain.gather([name], self._loop.feeds, lambda step, tensor: known.get(step, {}).get(tensor))
            for name in self._loop.given
        }
        finder = self._code.finder(self._loop.name)
        assert finder is not None
        # What texts give is read here, a row at a time.
        given = {name: np.asarray(found[name]) for name, found in each.items() if found}
        return finder(self._in_loop, frames, given)


class OpenClip(OpenLoop):
    """A loop that follows what is prompted."""

    def follower(self, frames: int) -> Follower:
        """Return the loop for one clip. frames: how many it has; 0 of a stream."""
        tracker = self._code.tracker(self._loop.name)
        if tracker is None:
            raise BuildError(f"the loop {self._loop.name} does not run frame by frame")
        return tracker(self._in_loop, frames)

    def given(self, frame: int, asked: Sequence[tuple[int, Ask]], size: tuple[int, int]) -> Arrays:
        """Return prompts on one frame as the loop gets them. BuildError says which is wrong.

        asked: an object's name and what is asked of it, in order; size: height and width of the frame
        """
        files = {f"mask{i}": ask.mask for i, (_, ask) in enumerate(asked) if ask.mask}
        prompts: list[Json] = []
        for i, (which, ask) in enumerate(asked):
            prompt: dict[str, Json] = {"frame": frame, "object": which}
            for key, values in (("points", ask.marks.points), ("boxes", ask.marks.boxes)):
                if values:
                    prompt[key] = [document_of(value) for value in values]
            prompts.append(prompt | ({"mask": f"mask{i}"} if ask.mask else {}))
        try:
            return self._host.clip_arrays(
                replace(self._request, files=files), value_of(self._kind, {"prompts": prompts}), size
            )
        except BuildError as error:
            raise BuildError(f"frame {frame}: what is asked {error}") from error

    def tracks(self, ids: Sequence[int], answers: Mapping[int, Arrays], size: tuple[int, int]) -> Tracks:
        """Return the objects of one frame, also those without an answer, which are not visible."""
        import numpy as np

        side = self._side(answers)
        masks = np.full((1, len(ids), *side), ABSENT, np.float32)
        visible, scores = np.full((1, len(ids)), ABSENT, np.float32), np.zeros((1, len(ids)), np.float32)
        for i, which in enumerate(ids):
            if answer := answers.get(which):
                masks[0, i] = answer["pred_masks"]
                visible[0, i], scores[0, i] = answer["object_score_logits"].item(), answer["iou_scores"].item()
        outputs: dict[str, NDArray[np.generic]] = {
            "ids": np.array(ids, np.int64),
            "masks": masks,
            "visible": visible,
            "scores": scores,
        }
        return self.result(outputs, size)

    @staticmethod
    def _side(answers: Mapping[int, Arrays]) -> tuple[int, int]:
        """Return height and width of the masks; any, where there is none."""
        shapes = (answer["pred_masks"].shape for answer in answers.values())
        height, width = next(shapes, (1, 1))
        return height, width


def _in_loop(run: chain.Network) -> LoopNetwork:
    def called(inputs: Arrays, /, kind: str = "") -> Arrays:
        return run(inputs)

    return called
