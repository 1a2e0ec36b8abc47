"""The vocabulary of a family's code: what stages use of it, and tables of its checkpoints. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sam3_build.errors import Keys
from sam3_build.spec import Json, ModelFamily

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import nn

    from sam3_build.params import SampleParams
    from sam3_build.pipeline.cases import Case, PromptRequest
    from sam3_build.pipeline.loop import Finder, Follower, LoopCode, LoopNetwork

    Array = NDArray[np.generic]

# ------------------------------------------------------------------ names of tensors


@dataclass(frozen=True)
class Section:
    """One part of a model in a checkpoint: names begin with `theirs`, where those of our modules begin with `ours`.

    differences: (pattern, replacement) of what else differs behind that, for `re.sub`, one after another. A `*` in the
                 result stands for q, k and v, whose rows the checkpoint has joined in one tensor, in this order
    """

    theirs: str
    ours: str
    differences: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Reshape:
    """What makes a checkpoint's tensor a module's: dims in reverse, without its first `skip` slices, or in parts.

    rank: the number of dims that the tensor must have for that; any other is taken as it is. None for every one
    parts: the names that equal parts along `axis` have in our modules, in order, where they are tensors of their own
    """

    transposed: bool = False
    axis: int = 0
    skip: int = 0
    rank: int | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """One way in which checkpoints name a family's tensors.

    roots:    how the names of the model's tensors begin, behind the prefix
    prefix:   what stands before all that the model has; `others`, before what belongs to another model in the file
    sections: how names become those of our modules, a longer beginning before a shorter one; None where they are these
    left_out: (what they are, a pattern of their names, without the prefix) of tensors that no module of ours has
    reshaped: our name -> what else must be done to the tensor
    """

    title: str
    roots: tuple[str, ...]
    prefix: str = ""
    others: tuple[str, ...] = ()
    sections: tuple[Section, ...] | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    reshaped: Mapping[str, Reshape] = field(default_factory=dict)


@dataclass(frozen=True)
class KeyTables:
    """What a family's `keys.py` declares as KEYS: the checkpoints that it reads, and the weights that it draws.

    model:        what its weights are those of, in messages: `SAM 3's image model`
    whole:        the class whose tensors a file must hold, in messages
    formats:      of two that fit a file equally well the first is taken
    other_models: (what a file holds, a pattern of one of its names), of models that the names could be taken for
    tied:         a name in our modules -> the name of the tensor that it shares; a file needs only one of them
    scales:       (`fnmatch` pattern on names, (mean, deviation)) of random weights where the usual ones do not do
    """

    model: str
    whole: str
    formats: tuple[Format, ...]
    other_models: tuple[tuple[str, str], ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    scales: tuple[tuple[str, tuple[float, float]], ...] = ()


# ------------------------------------------------------------------ modules of a family's folder


class Networks(Protocol):
    """`modules.py`: a family's networks in PyTorch. Workers only."""

    @property
    def DYNAMIC_SIZES(self) -> Mapping[str, int]:  # noqa: N802  (a constant of a module)
        """Sizes of the open dims while tracing: all different, none 0 or 1, which torch.export takes for constants."""

    def complete_config(self, config: Mapping[str, Json]) -> dict[str, Json]:
        """Return the model config with all defaults filled in; BuildError when it is no config of this family."""

    def whole_model(self, config: Mapping[str, Json]) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of all tensors that a file may hold by our names, also those that no component needs."""

    def skeleton(self, network: str, config: Mapping[str, Json]) -> nn.Module:
        """Return a network on torch's meta device: names and shapes of its weights. It takes and returns tensors."""

    def compute_tables(self, model: nn.Module) -> None:
        """Compute, on the CPU, the buffers of a network with weights that are none of its weights."""


class Prompts(Protocol):
    """`prompts.py`: what samples become. No torch."""

    def make_cases(self, request: PromptRequest) -> Iterable[Case]:
        """Return the cases of one pipeline that parity is measured on; InputError when `problems` finds any.

        No two cases have one name. Of a clip `pipeline/clips.Clip` gives the frames, from files and backwards alike. A
        sample that `is_reordered` becomes a case that is `like` the one of the sample before it, and has no frames.
        """

    def problems(
        self,
        samples: Sequence[tuple[str, SampleParams]],
        tokenizer: Path | None,
        files: Mapping[str, Path],
        config: Mapping[str, Json] | None,
    ) -> Sequence[tuple[Keys, str]]:
        """Return all that is wrong with samples, and where in the manifest. samples: the pipeline of each, and it."""

    def picture_arrays(self, picture: Image.Image, config: Mapping[str, Json]) -> Mapping[str, Array]:
        """Return what an RGB picture alone gives, one row of each array. Of a family whose pipelines take pictures."""

    def frame_arrays(self, frame: Image.Image, config: Mapping[str, Json]) -> Mapping[str, Array]:
        """Return what an RGB frame of a clip alone gives. Of a family whose pipelines take clips."""

    def clip_arrays(self, request: PromptRequest, prompts: object, size: tuple[int, int]) -> Mapping[str, Array]:
        """Return what prompts on a clip give: the arrays of its loop. BuildError when one is wrong.

        request: without samples; prompts: of the pipeline's class; size: (height, width) of the frames
        """

    def prompt_arrays(
        self, request: PromptRequest, prompts: Sequence[object], size: tuple[int, int]
    ) -> Mapping[str, Array]:
        """Return what prompts on one picture give, a row for each. BuildError when one is wrong.

        request: without samples and files; prompts: of the pipeline's class; size: (height, width) of the picture
        """


class Results(Protocol):
    """`results.py`: what outputs mean. No torch."""

    def find(self, outputs: Mapping[str, Array], size: tuple[int, int], threshold: float) -> object:
        """Return the result that the pipeline declares, of one row or clip, in pixels of this size (height, width).

        One function serves all pipelines of a family; their outputs tell them apart.
        """


class FamilyCode(Protocol):
    """A family as stages use it. A member is loaded when it is asked for, and the action's recipe must name its module.

    `registry.family_code` gives it; `registry.code_modules` gives the names for the recipe.
    """

    @property
    def family(self) -> ModelFamily:
        """The declaration."""

    @property
    def keys(self) -> KeyTables:
        """The tables of its checkpoints."""

    @property
    def modules(self) -> Networks:
        """Its networks in PyTorch."""

    @property
    def prompts(self) -> Prompts:
        """What samples become."""

    @property
    def results(self) -> Results:
        """What outputs mean."""

    def loop(self, name: str) -> LoopCode:
        """Return the function `name` of `loops.py`: the host code of a loop (see `pipeline/loop.py`)."""

    def tracker(self, loop: str) -> Callable[[Mapping[str, LoopNetwork], int], Follower] | None:
        """Return what runs a loop frame by frame: (networks, frames of the clip, 0 of a stream); None without one."""

    def finder(self, loop: str) -> Callable[[Mapping[str, LoopNetwork], int, Mapping[str, Array]], Finder] | None:
        """Return the same of a loop that finds objects itself: (networks, frames, the arrays of its prompts)."""
