"""Toy: the driver of the GPU that `gpu.json` describes, in a project folder; each question is noted in `asked.log`."""

import json
from pathlib import Path

from sam3_build.errors import NoDeviceError

GPU, STATE, ASKED = Path("gpu.json"), Path("state.txt"), Path("asked.log")


class Reading:
    """What `gpu.json` says."""

    def __init__(self):
        """Read it."""
        self.__dict__.update(json.loads(GPU.read_text()))


def state(environ):
    """Return what a reading holds for: the GPU itself, or what `state.txt` says."""
    if not GPU.exists():
        return None
    return [STATE.read_text() if STATE.exists() else GPU.read_text(), environ.get("CUDA_VISIBLE_DEVICES", "all")]


def read():
    """Return the GPU, or say why there is none."""
    with ASKED.open("a") as log:
        log.write("asked\n")
    if GPU.read_text() == "broken":
        raise NoDeviceError("the NVIDIA driver does not answer: Driver/library version mismatch")
    return Reading()


def free_bytes(identity):
    """Return some."""
    return 8 << 30
