"""A model that was built: takes a folder, returns what segments pictures. The host code is that of verification."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from sam3_build import registry
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.model_format import MODEL, ModelFile, ModelPipeline
from sam3_build.pipeline import chain, profiles
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.network import Network
from sam3_build.plugins import RunRequest
from sam3_build.runtime.ask import boxes_of, prompts_of
from sam3_build.runtime.choice import AUTO, Choice, choose
from sam3_build.runtime.folder import ModelFolder, open_folder
from sam3_build.runtime.found import Found, joined
from sam3_build.runtime.pictures import Given, given
from sam3_build.spec import Per, Step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.instances import Instances
    from sam3_build.runtime.ask import Boxes

    Picture = str | Path | Image.Image | NDArray[np.uint8]

# How many bytes of encoded pictures are kept.
MEMORY = 2 * 2**30

# What boxes without a text look for.
UNNAMED = "object"

# What a pipeline must give for `segment`.
RESULT = "instances"


def load(
    folder: str | Path,
    target: str = AUTO,
    precision: str | None = None,
    unverified: bool = False,
    *,
    memory: int = MEMORY,
    tokenizer: str | Path | None = None,
) -> Model:
    """Return the model in a folder: `artifacts/<manifest>`, or a published one.

    target, precision: see `choice.choose`; `auto` takes what passed and runs here, the fastest kind first
    unverified: whether files may run that did not pass, or were judged by an emulation alone
    memory:     bytes of encoded pictures that are kept
    tokenizer:  a tokenizer.json in the place of the folder's own

    BuildError when the folder is not one, when a file is missing or differs from its digest, when nothing may run here.
    """
    opened = open_folder(Path(folder))
    pipeline = _pipeline(opened)
    choice = choose(opened, pipeline, target, precision, unverified=unverified)
    return Model(opened, pipeline, choice, memory, Path(tokenizer) if tokenizer else None)


def _pipeline(folder: ModelFolder) -> ModelPipeline:
    """Return the pipeline that finds instances in pictures."""
    description = folder.description
    if description.family not in registry.names("families"):
        hint = did_you_mean(description.family, registry.names("families"))
        raise BuildError(f"{folder.path / MODEL}: this sam3-build knows no family {description.family!r}{hint}")
    fit = (p for p in description.pipelines if p.result == RESULT and not p.loops)
    found = next(fit, None)
    if found is None:
        kinds = ", ".join(f"{p.name} ({p.result})" for p in description.pipelines)
        raise BuildError(f"{folder.path} finds no instances in pictures; its pipelines are {kinds}")
    return found


class Model:
    """Networks that are loaded, and pictures that were encoded. One thread at a time.

    seconds, runs: component -> the time that it has taken, and how often it ran
    """

    def __init__(
        self, folder: ModelFolder, pipeline: ModelPipeline, choice: Choice, memory: int, tokenizer: Path | None
    ) -> None:
        """Open a session on each file, after its digest is checked."""
        description = folder.description
        family = registry.family(description.family).laid_out(description.layout)
        self.folder, self.choice, self._pipeline = folder, choice, pipeline
        self.seconds: dict[str, float] = {}
        self.runs: Counter[str] = Counter()
        self._prompts = family.pipeline(pipeline.name).prompts
        code = registry.family_code(description.family)
        self._host, self._results = code.prompts, code.results
        self._components = {component.name: component for component in description.components}
        self._steps = [Step(step.component, step.feeds, Per(step.per)) for step in pipeline.steps]
        self._request = PromptRequest(
            layout=description.layout,
            pipeline=pipeline.name,
            reference=description.reference,
            samples=(),
            tokenizer=tokenizer or (folder.file(description.tokenizer) if description.tokenizer else None),
            files={},
            config=description.config,
            padding=0,
        )
        self._scenes = _Scenes(memory)
        self._open = ExitStack()
        try:
            for file in choice.files.values():
                folder.require(file)
            self._networks = {name: self._network(name, file) for name, file in choice.files.items()}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free all networks and pictures."""
        self._scenes.clear()
        self._open.close()

    def __enter__(self) -> Self:
        """Return the model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def encode(self, picture: Picture) -> Scene:
        """Return a picture as the networks see it, to be asked as often as one likes.

        picture: a path, a PIL image, or [height, width, 3] uint8, RGB
        What computes on the picture alone runs once; what it gives is kept for the pictures used last, within the
        model's memory.
        """
        return self._encode(given(picture))

    def segment(
        self,
        picture: Picture,
        text: str | Sequence[str] | None = None,
        boxes: Boxes | None = None,
        box_labels: Sequence[int] | None = None,
        threshold: float | None = None,
        max_found: int | None = None,
    ) -> Found:
        """Return what is found in a picture: see `Scene.segment`."""
        return self.encode(picture).segment(text, boxes, box_labels, threshold, max_found)

    def segment_many(
        self,
        pictures: Iterable[Picture],
        text: str | Sequence[str] | None = None,
        boxes: Boxes | None = None,
        box_labels: Sequence[int] | None = None,
        threshold: float | None = None,
        max_found: int | None = None,
    ) -> Iterator[Found]:
        """Yield what is found in each picture, in order; a picture is read when it is due."""
        for picture in pictures:
            yield self.segment(picture, text, boxes, box_labels, threshold, max_found)

    def _encode(self, picture: Given) -> Scene:
        computed = self._scenes.get(picture.identity)
        if computed is None:
            arrays = self._host.picture_arrays(picture.image, self._request.config)
            # A step that needs a prompt does not run: it lacks an input.
            computed = chain.run(self._components, self._steps, self._networks, arrays)
            self._scenes.put(picture.identity, computed)
        return Scene(self, picture, computed)

    def _segment(
        self, scene: Scene, prompts: Sequence[object], texts: Sequence[str], threshold: float | None, most: int | None
    ) -> Found:
        import numpy as np

        size = scene.given.size
        arrays = self._host.prompt_arrays(self._request, prompts, size)
        computed = {name: self._repeated(name, outputs, len(prompts)) for name, outputs in scene.computed.items()}
        last = self._steps[-1].name
        outputs = chain.run(self._components, self._steps, self._networks, arrays, computed)[last]
        if broken := [name for name, array in outputs.items() if not np.isfinite(array).all()]:
            raise BuildError(
                f"{self.choice.name}: {last} gave {broken[0]} with NaN or infinity; do not rely on these files"
            )
        limit = self.folder.description.score_threshold if threshold is None else threshold
        results = [
            cast("Instances", self._results.find({name: a[row] for name, a in outputs.items()}, size, limit))
            for row in range(len(prompts))
        ]
        return joined(results, texts, np.asarray(scene.given.image), most)

    def _repeated(self, component: str, outputs: Arrays, rows: int) -> Arrays:
        """Return what one row of a picture gave, for so many rows."""
        import numpy as np

        axes = self.choice.files[component].row_axes
        return {n: np.repeat(a, rows, axes[n]) if rows > 1 and n in axes else a for n, a in outputs.items()}

    def _network(self, name: str, file: ModelFile) -> Callable[[Arrays], Arrays]:
        """Return what runs a component, with a session that stays open until the model is closed."""
        backend = registry.backend(file.backend)
        path = self.folder.file(file.path)
        # ONNX Runtime's product only describes a graph, which is what it runs.
        extension = path.suffix if backend.extension == ".json" else backend.extension
        stem = path.name.removesuffix(extension)
        session = self._open.enter_context(backend.session(RunRequest(path.parent, path.parent, stem, file.options)))
        static = self.folder.description.static
        dims = {t.name: tuple(static.get(str(dim), dim) for dim in t.dims) for t in self._components[name].inputs}
        own = {dim for of_input in dims.values() for dim in of_input if isinstance(dim, str)}
        network = Network(session, dims, profiles.restricted(file.profiles, own), file.row_dim, file.row_axes)

        def run(inputs: Arrays) -> Arrays:
            began = time.perf_counter()
            outputs = network.run(inputs, name)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            self.runs[name] += 1
            return outputs

        return run


@dataclass(frozen=True)
class Scene:
    """A picture that was encoded. computed: step -> what it gave of the picture alone, one row."""

    model: Model
    given: Given
    computed: Mapping[str, Arrays]

    def segment(
        self,
        text: str | Sequence[str] | None = None,
        boxes: Boxes | None = None,
        box_labels: Sequence[int] | None = None,
        threshold: float | None = None,
        max_found: int | None = None,
    ) -> Found:
        """Return what is found: of several texts, all of them together, in one run of the decoder.

        text:   what to look for; each text gets all boxes
        boxes:  [n, 4], left, top, right, bottom in pixels of the picture, as viewers show it
        box_labels: 1 is meant, which all are without them, 0 is not meant
        threshold:  scores above it are kept; the manifest's without
        max_found:  how many are kept, those of the best scores
        BuildError says which prompt is wrong, and why.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise BuildError(f"threshold is {threshold}; a score is from 0 to 1")
        if max_found is not None and max_found < 1:
            raise BuildError(f"max_found is {max_found}; keep one at least")
        prompts = prompts_of(self.model._prompts, text, boxes_of(boxes, box_labels))
        texts = [getattr(prompt, "text", None) or UNNAMED for prompt in prompts]
        return self.model._segment(self, prompts, texts, threshold, max_found)


class _Scenes:
    """What was computed of the pictures that were used last, as many as fit into so many bytes."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._kept: OrderedDict[Hashable, dict[str, Arrays]] = OrderedDict()

    def get(self, identity: Hashable) -> dict[str, Arrays] | None:
        if identity in self._kept:
            self._kept.move_to_end(identity)
        return self._kept.get(identity)

    def put(self, identity: Hashable, computed: dict[str, Arrays]) -> None:
        self._kept[identity] = computed
        while self._kept and sum(map(_size, self._kept.values())) > self._memory:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()


def _size(computed: Mapping[str, Arrays]) -> int:
    return sum(array.nbytes for outputs in computed.values() for array in outputs.values())
