"""Takes a component's ONNX and shape profiles, returns what the target's backend runs.

It alone turns profiles into the shapes of inputs.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sam3_build import registry
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.graph.interface import interface
from sam3_build.machine import gpu, nvidia
from sam3_build.params import BuildParams
from sam3_build.plugins import BuildRequest, Memory, Stage
from sam3_build.spec import Json, Profile, Range, Shapes, TensorSpec


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write `<component>.<precision><extension>`, and the backend's companions of it, into `out`.

    document: BuildParams
    inputs: onnx, the folder that holds `<component>.<precision>.onnx`
            scratch (optional), a folder for what only saves time
    """
    import onnx

    params = BuildParams.of(document)
    stem, backend = f"{params.component}.{params.precision}", registry.backend(params.backend)
    onnx_file = inputs["onnx"] / f"{stem}.onnx"
    if not onnx_file.is_file():
        others = sorted(f.name for f in onnx_file.parent.glob("*.onnx"))
        raise BuildError(f"{onnx_file.name} is not in the input folder{did_you_mean(onnx_file.name, others)}")
    graph_inputs, graph_outputs = interface(onnx.load(str(onnx_file), load_external_data=False).graph)
    shapes = tuple(
        shapes_of(onnx_file.name, graph_inputs, profile, number)
        for number, profile in enumerate(params.profiles if backend.uses_profiles else (), start=1)
    )
    request = BuildRequest(onnx_file, stem, params.options, shapes, scratch=inputs.get("scratch"))
    if "build" in backend.needs_gpu(params.options):
        live = gpu.probe(os.environ)
        request = replace(request, device=live, free_bytes=nvidia.free_bytes(live.uuid))
    started = time.monotonic()
    facts = backend.build(request, out)
    seconds = round(time.monotonic() - started, 3)
    expected = [f"{request.stem}{extension}" for extension in (backend.extension, *backend.companions)]
    size = _check(out, expected, backend.name)
    logging.getLogger(__name__).info("%s: %d bytes in %.1f s", request.stem, size, seconds)
    return {
        **facts,
        "seconds": seconds,
        "bytes": size,
        "inputs": [as_json(tensor) for tensor in graph_inputs],
        "outputs": [as_json(tensor) for tensor in graph_outputs],
    }


def as_json(tensor: TensorSpec) -> dict[str, Json]:
    """Return a tensor as facts and descriptions hold it."""
    return {"name": tensor.name, "dtype": tensor.dtype, "dims": tensor.dims}


def shapes_of(file: str, graph_inputs: Sequence[TensorSpec], ranges: Profile, number: int) -> dict[str, Shapes]:
    """Return input name -> (min, opt, max) shapes of shape profile `number`, counted from 1.

    Raises BuildError for a dynamic dim that has no name or no range.
    """
    shapes: dict[str, Shapes] = {}
    for tensor in graph_inputs:
        columns: list[Range] = []
        for axis, dim in enumerate(tensor.dims):
            if isinstance(dim, int):
                columns.append((dim, dim, dim))
            elif dim in ranges:
                columns.append(ranges[dim])
            else:
                what = (
                    f"dynamic dimension {dim!r} (axis {axis})" if dim else f"an unnamed dynamic dimension (axis {axis})"
                )
                raise BuildError(
                    f"{file}: input {tensor.name!r} has {what}, for which shape profile {number} gives no range"
                    f"{did_you_mean(dim, ranges)}; add it to every shape profile that this target uses"
                )
        low, usual, high = (tuple(column[i] for column in columns) for i in range(3))
        shapes[tensor.name] = (low, usual, high)
    return shapes


def _check(out: Path, expected: Sequence[str], backend: str) -> int:
    """Return the size of the first file that the backend had to write; raise when it wrote others, or nothing."""
    written = sorted(f.name for f in out.iterdir())
    if written != sorted(expected):
        raise BuildError(f"backend {backend!r} had to write {', '.join(map(repr, expected))} and wrote {written}")
    sizes = {name: (out / name).stat().st_size for name in expected}
    if empty := next((name for name, size in sizes.items() if not size), None):
        raise BuildError(f"backend {backend!r} wrote an empty {empty!r}")
    return sizes[expected[0]]


STAGE = Stage(
    name="build",
    summary="Build engines and sessions for each target",
    tools=(),
    run=run,
    memory=Memory(base=800_000_000, weights=3.6),
)
