"""What TensorRT and TensorRT-RTX share: build strongly typed engines through Polygraphy.

Both are one API under two module names. An environment variable, read when Polygraphy is imported, says which is meant.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Protocol

from sam3_build.errors import BuildError
from sam3_build.plugins import BuildRequest
from sam3_build.spec import Json, Shapes

# Progress is written each time that so many more hundredths are done.
_STEP = 5


class BuilderConfig(Protocol):
    """As much of a builder's configuration as is set here, after Polygraphy has set the rest."""

    def clear_flag(self, flag: object) -> None:
        """Switch a builder flag off."""


# (the library, optimization profiles, progress monitor) -> what makes a configuration from a builder and a network
ConfigFactory = Callable[[ModuleType, list[object], object], Callable[[object, object], BuilderConfig]]


@dataclass(frozen=True)
class Library:
    """One of the two: what to import, what people call it, and how to get it."""

    module: str
    title: str
    distributions: tuple[str, ...]
    install: str

    def missing(self) -> str | None:
        """Say what is not installed here, or None. Polygraphy comes with sam3_build, and may have been removed."""
        if not _is_installed("polygraphy", ("polygraphy",)):
            return "the Python package polygraphy is not installed (pip install polygraphy)"
        if not _is_installed(self.module, self.distributions):
            return f"the Python package {self.module} is not installed ({self.install})"
        return None


def _is_installed(module: str, distributions: Sequence[str]) -> bool:
    """Tell whether a distribution is there whose version enters the key; its libraries can be there without it."""
    return find_spec(module) is not None and any(map(_has_version, distributions))


def _has_version(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


# ------------------------------------------------------------------ building


def build_engine(
    request: BuildRequest,
    out: Path,
    library: Library,
    where: str,
    make_config: ConfigFactory,
    cache: Path | None = None,
) -> int:
    """Write `<stem>.engine` into `out`; return the number of its optimization profiles.

    cache is a file that this build's timings are added to. TF32 is off, though both builders have it on by default:
    what the graph calls FP32 is computed in FP32.
    Raises BuildError that begins with `where` and holds the library's own words and the nodes that they name.
    """
    trt = _import(library)
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath
    from polygraphy.exception import PolygraphyException

    create = make_config(trt, [_profile(shapes) for shapes in request.profiles], _monitor(trt))

    def configure(builder: object, network: object) -> BuilderConfig:
        config = create(builder, network)
        config.clear_flag(trt.BuilderFlag.TF32)
        return config

    with _collected_errors() as errors:
        try:
            network = NetworkFromOnnxPath(str(request.onnx), strongly_typed=True)
            saved = str(cache) if cache else None
            engine = EngineBytesFromNetwork(network, config=configure, save_timing_cache=saved)()
        except PolygraphyException as error:
            raise BuildError(_failure_message(where, library.title, [*errors, str(error)], request.onnx)) from error
    (out / f"{request.stem}.engine").write_bytes(memoryview(engine))
    return len(request.profiles)


def _import(library: Library) -> ModuleType:
    """Import the library, after making sure that Polygraphy means the same one."""
    from importlib import import_module

    from polygraphy import config as polygraphy_config

    means = "tensorrt_rtx" if polygraphy_config.USE_TENSORRT_RTX else "tensorrt"
    if means != library.module:
        flag = int(library.module == "tensorrt_rtx")
        raise BuildError(
            f"Polygraphy was imported to drive {means}: start the process with POLYGRAPHY_USE_TENSORRT_RTX={flag}"
        )
    return import_module(library.module)


def _profile(shapes: Mapping[str, Shapes]) -> object:
    from polygraphy.backend.trt import Profile

    profile = Profile()
    for tensor, (low, usual, high) in shapes.items():
        profile.add(tensor, min=low, opt=usual, max=high)
    return profile


@contextmanager
def _collected_errors() -> Iterator[list[str]]:
    """Send Polygraphy's and TensorRT's messages through `logging`; yield the list that the errors among them enter."""
    from polygraphy.logger import G_LOGGER

    G_LOGGER.colors, G_LOGGER.letter, G_LOGGER.use_python_logging_system = False, False, True
    errors: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record.getMessage().strip())

    listener = Listener(level=logging.ERROR)
    logger = logging.getLogger("Polygraphy")
    logger.addHandler(listener)
    try:
        yield errors
    finally:
        logger.removeHandler(listener)


def _failure_message(where: str, title: str, errors: list[str], onnx_file: Path) -> str:
    """Return the message of a failed build: the nodes that the library names, then its own words."""
    import onnx

    text = "\n".join(dict.fromkeys(errors))
    tokens = set(re.findall(r"[^\s'\"\[\](),;]+", text))
    graph = onnx.load(str(onnx_file), load_external_data=False).graph
    nodes = [f"{node.name} ({node.op_type})" for node in graph.node if node.name in tokens]
    at = f", at {', '.join(nodes)}" if nodes else ""
    return f"{where}: {title} cannot build it{at}. Its messages:\n{text}"


# ------------------------------------------------------------------ progress


class Progress:
    """Phases, which lie in one another and count steps, in; how much is done, in hundredths, out."""

    def __init__(self) -> None:
        """Begin with nothing done."""
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # name -> (parent, steps done, steps)
        self._reported = -_STEP

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note a phase, which is one step of its parent."""
        self._phases[name] = (parent, 0, max(steps, 1))

    def step(self, name: str, step: int) -> str | None:
        """Note that a step (counted from 0) is done; return what to say of it, now and then."""
        if name not in self._phases:
            return None
        parent, _, steps = self._phases[name]
        self._phases[name] = (parent, step + 1, steps)
        done = int(100 * self._done(name))
        if done < self._reported + _STEP:
            return None
        self._reported = done
        return f"progress: {done} % ({name})"

    def finish(self, name: str) -> None:
        """Forget a phase; its parent will say that a step is done."""
        self._phases.pop(name, None)

    def _done(self, name: str) -> float:
        """Return how much of the whole is done when phase `name` stands where it does."""
        share = 0.0
        current: str | None = name
        while current in self._phases:
            current, done, steps = self._phases[current]
            share = min((done + share) / steps, 1.0)
        return share


def _monitor(trt: ModuleType) -> object:
    """Return a progress monitor of the library that writes to the log."""
    log = logging.getLogger(__name__)
    progress = Progress()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]  # the library ships no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if message := progress.step(phase_name, step):
                log.info("%s", message)
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


# ------------------------------------------------------------------ running


def polygraphy_options(options: Mapping[str, Json], stem: str) -> tuple[str, ...]:
    """Return the file and the options by which `polygraphy run` runs an engine."""
    return f"{stem}.engine", "--model-type", "engine", "--trt"
