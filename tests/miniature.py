"""Artifacts of the default manifest, or of its v2, for tests: an action in, the folder or facts of its output out.

What is not in this checkout's store is built by `doit`, once, however many test processes ask; after `make demo`
nothing is left to build.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.execution.session import Session, open_session
from sam3_build.graph.files import onnx_file
from sam3_build.store.objects import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

ROOT = Path(__file__).parents[1]
MANIFEST = "sam3_mini"
MANIFEST_V2 = "sam3_mini_v2"
CONFIG = ROOT / "manifests" / "sam3_mini" / "config.json"
TOKENIZER = ROOT / "manifests" / "sam3_mini" / "tokenizer.json"
SCENES = ROOT / "manifests" / "samples"
WEIGHTS = ROOT / "manifests" / "sam3_mini" / "model.safetensors"
SOURCE = {"random": {"seed": 0}}


def folder(action: str, manifest: str = MANIFEST) -> Path:
    """Return the folder of an action's output; read-only."""
    found = _record(action, manifest)
    return _session(manifest).store.object_path(found.object)


def facts(action: str) -> dict[str, object]:
    """Return what an action's stage reported."""
    return dict(_record(action).facts)


def provenance(action: str) -> dict[str, object]:
    """Return what its record says of an action's run."""
    return dict(_record(action).provenance)


def onnx(action: str, manifest: str = MANIFEST) -> Path:
    """Return the ONNX file that an action wrote."""
    return onnx_file(folder(action, manifest))


def params(action: str, manifest: str = MANIFEST) -> dict[str, object]:
    """Return the parameters that the plan gives to an action."""
    return deepcopy(dict(_session(manifest).plan.action(action).params))


def inputs(action: str, manifest: str = MANIFEST) -> dict[str, Path]:
    """Return the input paths that an action's stage gets."""
    _record(action, manifest)
    session = _session(manifest)
    return session.resolver.input_paths(session.plan.action(action))


def run_onnx(model: Path | bytes, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run an ONNX on ONNX Runtime's CPU and return its outputs by name. One thread: test processes share the cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@cache
def _record(action: str, manifest: str = MANIFEST) -> Record:
    found = _session(manifest).resolver.resolve(action).record
    if found is None:
        argv = [sys.executable, "-m", "doit", f"manifest={manifest}", action]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        _session.cache_clear()  # what it knew to be missing is there
        found = _session(manifest).resolver.resolve(action).record
    assert found is not None, f"doit {action} ended well, but its output is not fresh"
    return found


@cache
def _session(manifest: str) -> Session:
    return open_session(ROOT, manifest, os.environ)
