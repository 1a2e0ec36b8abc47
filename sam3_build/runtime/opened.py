"""A pipeline whose networks are loaded: takes a picture and prompts, returns the outputs of its last step."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.model_format import ModelFile, ModelPipeline
from sam3_build.pipeline import chain, profiles
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.network import Network
from sam3_build.plugins import RunRequest
from sam3_build.runtime.choice import Choice
from sam3_build.runtime.folder import ModelFolder
from sam3_build.runtime.pictures import Given
from sam3_build.spec import Per, Step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.chain import Arrays


class Times:
    """What networks cost. seconds, runs: component -> the time that it has taken, and how often it ran."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.seconds: dict[str, float] = {}
        self.runs: Counter[str] = Counter()

    def add(self, component: str, seconds: float) -> None:
        """Add a run."""
        self.seconds[component] = self.seconds.get(component, 0.0) + seconds
        self.runs[component] += 1


class Sessions:
    """Networks that are loaded, each once, whichever pipelines run it."""

    def __init__(self, folder: ModelFolder) -> None:
        """Begin with none. folder: that of model.json."""
        self._folder, self._times = folder, Times()
        self._networks: dict[tuple[str, str, bool], Network] = {}
        self._components = {component.name: component for component in folder.description.components}
        self._open = ExitStack()

    @property
    def times(self) -> Times:
        """What they cost so far."""
        return self._times

    def close(self) -> None:
        """Free all of them."""
        self._networks.clear()
        self._open.close()

    def network(self, name: str, file: ModelFile, *, on_device: bool) -> Callable[[Arrays], Arrays]:
        """Return what runs a component. BuildError when its file does not load.

        on_device: whether its outputs may stay on the device (see `RunRequest`)
        """
        network = self._network(name, file, on_device)

        def run(inputs: Arrays) -> Arrays:
            began = time.perf_counter()
            outputs = network.run(spread(inputs, network.dims), name)
            self._times.add(name, time.perf_counter() - began)
            return outputs

        return run

    def _network(self, name: str, file: ModelFile, on_device: bool) -> Network:
        key = name, file.path, on_device
        if key not in self._networks:
            backend = registry.backend(file.backend)
            path = self._folder.file(file.path)
            # ONNX Runtime's product only describes a graph, which is what it runs.
            extension = path.suffix if backend.extension == ".json" else backend.extension
            stem = path.name.removesuffix(extension)
            request = RunRequest(path.parent, path.parent, stem, file.options, on_device)
            session = self._open.enter_context(backend.session(request))
            static = self._folder.description.static
            dims = {t.name: tuple(static.get(str(dim), dim) for dim in t.dims) for t in self._components[name].inputs}
            own = {dim for of_input in dims.values() for dim in of_input if isinstance(dim, str)}
            ranges = profiles.restricted(file.profiles, own)
            self._networks[key] = Network(session, dims, ranges, file.row_dim, file.row_axes)
        return self._networks[key]


class OpenPipeline:
    """The networks of one pipeline, and what it computed of the pictures that were used last."""

    def __init__(
        self,
        folder: ModelFolder,
        pipeline: ModelPipeline,
        choice: Choice,
        sessions: Sessions,
        memory: int = 0,
        tokenizer: Path | None = None,
    ) -> None:
        """Open a session on each file that has none yet, after all digests are checked.

        memory: bytes of encoded pictures that are kept; tokenizer: in the place of the folder's own
        """
        description = folder.description
        self.choice = choice
        self._host = registry.family_code(description.family).prompts
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
        self._pictures = _Pictures(memory)
        for file in choice.files.values():
            folder.require(file)
        # What a loop or the last step gives is read here; everything else may stay where it was computed.
        read_here = {name for loop in pipeline.loops for name in loop.components} or {self._steps[-1].component}
        self._networks = {
            name: sessions.network(name, file, on_device=name not in read_here) for name, file in choice.files.items()
        }

    def forget(self) -> None:
        """Free all pictures."""
        self._pictures.clear()

    def encode(self, picture: Given) -> Mapping[str, Arrays]:
        """Return step -> outputs of what computes on the picture alone, one row. It runs once for pictures kept."""
        computed = self._pictures.get(picture.identity)
        if computed is None:
            arrays = self._host.picture_arrays(picture.image, self._request.config)
            # A step that needs a prompt does not run: it lacks an input.
            computed = chain.run(self._components, self._steps, self._networks, arrays)
            self._pictures.put(picture.identity, computed)
        return computed

    def run(
        self,
        computed: Mapping[str, Arrays],
        prompts: Sequence[object],
        files: Mapping[str, Path],
        size: tuple[int, int],
        logits: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    ) -> Arrays:
        """Return the outputs of the last step, a row for each prompt.

        computed: what `encode` gave of the picture; size: its height and width
        prompts:  of the pipeline's class; files, logits: masks that they name, by role
        BuildError says which prompt is wrong, or that an output is not finite.
        """
        import numpy as np

        arrays = self._host.prompt_arrays(replace(self._request, files=files, logits=logits), prompts, size)
        last = self._steps[-1].name
        outputs = chain.run(self._components, self._steps, self._networks, arrays, computed)[last]
        if broken := [name for name, array in outputs.items() if not np.isfinite(array).all()]:
            raise BuildError(
                f"{self.choice.name}: {last} gave {broken[0]} with NaN or infinity; do not rely on these files"
            )
        return outputs


def spread(inputs: Arrays, dims: Mapping[str, Sequence[int | str]]) -> Arrays:
    """Return the inputs of a network, those of one picture repeated for several prompts on it.

    That is: along an open dim, of which an input has one entry and another one has more. dims: of each input
    """
    import numpy as np

    sizes: dict[str, int] = {}
    for name, array in inputs.items():
        for dim, size in zip(dims[name], array.shape, strict=False):
            if isinstance(dim, str):
                sizes[dim] = max(size, sizes.get(dim, size))
    repeated = dict(inputs)
    for name in inputs:
        for axis, dim in enumerate(dims[name]):
            if isinstance(dim, str) and repeated[name].shape[axis] == 1 < sizes[dim]:
                repeated[name] = np.repeat(repeated[name], sizes[dim], axis)
    return repeated


class _Pictures:
    """What was computed of the pictures that were used last, as many as fit into so many bytes."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._kept: OrderedDict[Hashable, Mapping[str, Arrays]] = OrderedDict()

    def get(self, identity: Hashable) -> Mapping[str, Arrays] | None:
        if identity in self._kept:
            self._kept.move_to_end(identity)
        return self._kept.get(identity)

    def put(self, identity: Hashable, computed: Mapping[str, Arrays]) -> None:
        if _size(computed) > self._memory:
            return
        self._kept[identity] = computed
        while sum(map(_size, self._kept.values())) > self._memory:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()


def _size(computed: Mapping[str, Arrays]) -> int:
    return sum(array.nbytes for outputs in computed.values() for array in outputs.values())
