"""A picture that is asked: takes prompts, returns what is found. The host code is that of verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack, cast

from sam3_build.errors import BuildError
from sam3_build.pipeline.prompts import taken
from sam3_build.runtime.ask import MASK, MASKS, Ask, taking
from sam3_build.runtime.found import KINDS, Found, joined
from sam3_build.runtime.options import Effort, Request
from sam3_build.runtime.pictures import Given, given
from sam3_build.runtime.refine import Refine, refined
from sam3_build.runtime.scales import Window, fused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.instances import Instances
    from sam3_build.pipeline.masks import Masks
    from sam3_build.runtime.ask import Texts
    from sam3_build.runtime.model import Model
    from sam3_build.runtime.options import Options

# What boxes without a text look for.
UNNAMED = "object"


@dataclass(frozen=True)
class Scene:
    """A picture that was encoded, by one pipeline or more."""

    model: Model
    given: Given
    _computed: dict[str, Mapping[str, Arrays]] = field(default_factory=dict)

    def computed(self, pipeline: str) -> Mapping[str, Arrays]:
        """Return step -> what it gives of the picture alone, one row."""
        if pipeline not in self._computed:
            self._computed[pipeline] = self.model._open(pipeline).encode(self.given)
        return self._computed[pipeline]

    def segment(self, text: Texts | None = None, **options: Unpack[Options]) -> Found:
        """Return what is found: of several texts, all of them together, in one run of the decoder.

        text: what to look for; each text gets all boxes, points and the mask. For the others see `Options`
        BuildError says which prompt is wrong, and why; or what the model takes.
        """
        return self.answer(Request.of(text, **options))

    def answer(self, request: Request) -> Found:
        """Return what is found of a request that is checked: see `segment`."""
        import numpy as np

        results: list[Instances] = []
        texts: list[str] = []
        for ask in request.asks:
            pipeline = taking(self.model._kinds, ask)
            kind = str(self.model._pipelines[pipeline].result)
            found = self._worked_for(pipeline, kind, ask, request)
            results += [KINDS[kind](one, request.keep.multimask) for one in found]
            texts += ask.marks.texts or (UNNAMED,) * len(found)
        return request.keep.of_picture(joined(results, texts, np.asarray(self.given.image)))

    # ------------------------------------------------------------------ results of prompts

    def _worked_for(self, pipeline: str, kind: str, ask: Ask, request: Request) -> Sequence[object]:
        """Return a result of each prompt, with all effort that is asked for."""
        effort = request.effort
        if effort == Effort():
            prompts = ask.prompts(self.model._kinds[pipeline], kind)
            return self._results(pipeline, prompts, ask.logits, ask.files, request.keep.threshold)
        if kind != MASKS:
            raise BuildError("refine and scales are for prompts that mean one object, and this model finds all")
        if not effort.scales:
            return self._refined(pipeline, ask, effort.refine)
        if MASK in ask.keys:
            raise BuildError(
                "scales go with points and boxes: a mask, or what was found before, is of the whole picture"
            )
        return [self._at_scales(pipeline, one, effort) for one in ask.objects]

    def _at_scales(self, pipeline: str, ask: Ask, effort: Effort) -> Masks:
        """Return one mask of one object, fused of those at each scale."""
        found = []
        for scale in effort.scales:
            window = Window.around(ask, scale, self.given.size)
            there = Scene(self.model, given(window.of(self.given.image)))
            found += [(window, masks) for masks in there._refined(pipeline, window.moved(ask), effort.refine)]
        return fused(found, self.given.size)

    def _refined(self, pipeline: str, ask: Ask, how: Refine | None) -> Sequence[Masks]:
        """Return an answer of each prompt, its mask fed back where that is asked for."""
        kind = self.model._kinds[pipeline]
        asked: list[Any] = ask.prompts(kind, MASKS)
        first = cast("list[Masks]", self._results(pipeline, asked, ask.logits, ask.files))
        if how is None:
            return first
        if MASK not in taken(kind):
            raise BuildError(f"refine feeds masks back, and this model takes none; pipeline {pipeline} takes no mask")

        def again(rows: Sequence[int], logits: Sequence[NDArray[np.float32]]) -> Sequence[Masks]:
            roles = {f"previous{row}": own for row, own in zip(rows, logits, strict=True)}
            prompts = [replace(asked[row], mask=role) for row, role in zip(rows, roles, strict=True)]
            return cast("Sequence[Masks]", self._results(pipeline, prompts, roles))

        return refined(first, again, how)

    def _results(
        self,
        pipeline: str,
        prompts: Sequence[object],
        logits: Mapping[str, NDArray[np.float32]],
        files: Mapping[str, Path] = MappingProxyType({}),
        threshold: float | None = None,
    ) -> list[object]:
        """Return what the family makes of each prompt's outputs. files, logits: masks that prompts name, by role."""
        model, size = self.model, self.given.size
        outputs = model._open(pipeline).run(self.computed(pipeline), prompts, files, size, logits)
        limit = model.folder.description.score_threshold if threshold is None else threshold
        rows = ({name: array[row] for name, array in outputs.items()} for row in range(len(prompts)))
        return [model._results.find(own, size, limit) for own in rows]
