"""Takes a stage's request, runs it in a worker process, returns how the run ended and what it reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class Job:
    """One run of a stage.

    request: what `worker.answer` takes, as JSON
    log: takes all that the run writes to its standard output and error
    environ: variables that the run has beyond those of this process
    locks: descriptors that stay open as long as the run lasts, even when this process dies
    """

    request: bytes
    log: BinaryIO
    environ: Mapping[str, str]
    locks: tuple[int, ...]


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit status, negative when a signal killed it, and the JSON that it gave, or nothing."""

    code: int
    said: bytes


class Launch(Protocol):
    """Runs a job to its end; calls `started` with the process that runs it, which dies with this one."""

    def __call__(self, job: Job, started: Callable[[int], None]) -> Ended:
        """Return how the run ended, nothing of it left running. When interrupted, end it and raise."""
        ...


def run_worker(job: Job, started: Callable[[int], None]) -> Ended:
    """Run a job in a new interpreter: `execution.worker`."""
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "sam3_build.execution.worker", str(writer), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=job.log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"} | dict(job.environ),
            pass_fds=(writer, *job.locks),
            start_new_session=True,
        )
        os.close(writer)
        writer = -1
        started(process.pid)
        try:
            said = _converse(process, job.request, reader)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    return Ended(process.returncode, said)


def _converse(process: subprocess.Popen[bytes], request: bytes, reader: int) -> bytes:
    assert process.stdin
    try:
        process.stdin.write(request)
        process.stdin.close()
    except BrokenPipeError:
        pass  # the worker is already gone; its exit status says why
    said = b""
    while block := os.read(reader, 1 << 16):
        said += block
    # While its leader is not reaped, the group's number cannot belong to anybody else: end what it left running.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return said
