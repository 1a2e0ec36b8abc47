"""OpenVINO on a CPU: takes an ONNX file and shape profiles, builds a blob for the kind of CPU that this machine has.

The types are the graph's. With the hint f32 each layer computes in the type that the file gives it, BFLOAT16 and INT8
included; the hints bf16 (OpenVINO's own, where the CPU has kernels for it) and f16 lower what a recipe keeps, silently.
Two builds of the same file give different bytes, so that nothing may be keyed by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sam3_build.backends import _openvino
from sam3_build.plugins import Backend, BuildRequest, Precision, RunRequest, Session
from sam3_build.spec import Device, Json, Processors

# What a CPU computes matrix products in -> what OpenVINO lists among its capabilities when this one has kernels for it.
CPU_TYPES = {"FLOAT": "FP32", "BFLOAT16": "BF16", "INT8": "INT8"}


@dataclass(frozen=True)
class OpenVinoOptions:
    """What a manifest says about an OpenVINO target.

    device:  what it is built for and run on, by OpenVINO's name. No GPU or NPU has run any of it yet
    threads: how many threads run it, else as many as OpenVINO takes
    """

    device: Literal["CPU", "GPU", "NPU"] = "CPU"
    threads: int | None = None


def build(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    """Write `<stem>.blob`, and beside it what a session holds it to; return the device and the hint that it has."""
    terms = _openvino.build_blob(request, out)
    return {**terms.device, "hint": _openvino.HINT, "profiles": len(terms.profiles)}


def _session(request: RunRequest) -> AbstractContextManager[Session]:
    from sam3_build.backends import _openvino_session  # no build imports it: see layers.RUN_ONLY

    return _openvino_session.session(request)


def _layer_types(request: RunRequest) -> Mapping[str, str]:
    """Return the element type in which the blob computes each matrix product, by the name of its ONNX node."""
    from sam3_build.backends import _openvino_layers

    return _openvino_layers.layer_types(request)


# ------------------------------------------------------------------ what a target asks for


def _probe() -> Processors:
    return _openvino.probe() if _is_installed() else Processors()


def _is_installed() -> bool:
    """Tell whether a release is there, whose version enters the key."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution("openvino")
    except PackageNotFoundError:
        return False
    return find_spec("openvino") is not None


def _impossible(options: Mapping[str, Json], precision: Precision) -> str | None:
    """Say why no machine can build this, or None."""
    threads = options["threads"]
    if isinstance(threads, int) and threads < 1:
        return f"threads is {threads}: it must be 1 or more; leave it out for as many as OpenVINO takes"
    unknown = [kind for kind in precision.gemm_types if kind not in CPU_TYPES]
    if options["device"] == "CPU" and unknown:
        return (
            f"{precision.name}: on a CPU, OpenVINO computes in FLOAT what a file has in {unknown[0]}, silently; it "
            f"keeps {', '.join(CPU_TYPES)} (bf16 is the 16-bit precision of a CPU)"
        )
    return None


def _missing(options: Mapping[str, Json], device: Device | None) -> str | None:
    """Say what this machine lacks, or None."""
    if not isinstance(device, Processors) or not _is_installed():
        return "the Python package openvino is not installed (pip install 'sam3-build[openvino]')"
    if device.problem:
        return device.problem
    if options["device"] not in device.devices:
        return f"OpenVINO finds no {options['device']} on this machine, only {', '.join(device.devices) or 'nothing'}"
    return None


def _lacks_kernels(options: Mapping[str, Json], device: Device | None, precision: Precision) -> str | None:
    """Say which type of this precision the CPU has no kernels for, or None: OpenVINO would compute in another one."""
    fields = _device_fields(options, device)
    capabilities = fields.get("capabilities")
    if options["device"] != "CPU" or not isinstance(capabilities, list | tuple):
        return None
    lacking = [kind for kind in precision.gemm_types if CPU_TYPES.get(kind, kind) not in capabilities]
    if not lacking:
        return None
    return (
        f"{precision.name}: this CPU ({fields['name']}) has no {lacking[0]} kernels, OpenVINO says: "
        f"{', '.join(map(str, capabilities))}"
    )


def _device_fields(options: Mapping[str, Json], device: Device | None) -> Mapping[str, Json]:
    """Return what a blob is bound to: the exact release, the device's name and its capabilities."""
    return device.devices.get(str(options["device"]), {}) if isinstance(device, Processors) else {}


BACKEND = Backend(
    name="openvino",
    summary="OpenVINO blobs, built on this machine for its own CPU, and run on it",
    product="OpenVINO blobs",
    extension=".blob",
    companions=(_openvino.TERMS,),
    options=OpenVinoOptions,
    tools=lambda options: ("openvino",),
    uses_profiles=True,
    env={},
    needs_gpu=lambda options: (),
    runs=lambda options: True,
    probe=_probe,
    impossible=_impossible,
    missing=_missing,
    lacks_kernels=_lacks_kernels,
    cannot_run=_missing,
    device_fields=_device_fields,
    build=build,
    session=_session,
    layer_types=_layer_types,
    names_all_layers=True,
    variants=(("on a CPU", asdict(OpenVinoOptions())),),
)
