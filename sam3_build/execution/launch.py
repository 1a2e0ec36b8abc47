"""Takes a stage's request, runs it in a process of its own, returns how the run ended and what it reported."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import BinaryIO, Protocol

_SERVER = "sam3_build.execution.fork_server"


@dataclass(frozen=True)
class Job:
    """One run of a stage.

    request: what `worker.answer` takes, as JSON
    log: takes all that the run writes to its standard output and error
    environ: variables that the run has beyond those of this process
    locks: descriptors that stay open as long as the run lasts, even when this process dies
    imports: modules that the stage imports and that several runs may share (`fork_server`)
    """

    request: bytes
    log: BinaryIO
    environ: Mapping[str, str]
    locks: tuple[int, ...]
    imports: tuple[str, ...] = ()


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
    said = _read_all(reader)
    # While its leader is not reaped, the group's number cannot belong to anybody else: end what it left running.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return said


def _read_all(reader: int) -> bytes:
    """Return all that is written to a pipe until its last writer closes it."""
    said = b""
    while block := os.read(reader, 1 << 16):
        said += block
    return said


# ------------------------------------------------------------------ forks of one process


class ForkServers:
    """A `Launch`: jobs that name modules to import run in forks of a server, all others in workers of their own.

    Jobs whose first module is the same share a server: what needs ONNX alone is no fork of one that has PyTorch.
    """

    def __init__(self) -> None:
        """Start nothing: a server starts with the first job that needs it."""
        self._lock = Lock()
        self._channels: dict[str, socket.socket] = {}

    def __call__(self, job: Job, started: Callable[[int], None]) -> Ended:
        """Return how the job ended, nothing of it left running. When interrupted, end it and raise."""
        if not job.imports or sys.platform != "linux":
            return run_worker(job, started)
        here, there = socket.socketpair()
        reader, writer = os.pipe()
        with here, os.fdopen(reader, "rb", buffering=0):
            with there, os.fdopen(writer, "wb"), _file_of(job) as request:
                self._send(job.imports[0], [request, job.log.fileno(), writer, there.fileno(), *job.locks])
            try:
                if not (process := here.recv(16)):
                    return Ended(-signal.SIGKILL, b"")  # the server is gone, and its forks with it
                started(int(process))
                said, status = _read_all(reader), here.recv(16)
            except BaseException:
                here.shutdown(socket.SHUT_WR)
                here.recv(16)
                raise
        return Ended(int(status) if status else -signal.SIGKILL, said)

    def _send(self, server: str, descriptors: Sequence[int]) -> None:
        """Hand a job to its server; to a new one when there is none, or it was killed."""
        with self._lock:
            if channel := self._channels.get(server):
                with suppress(BrokenPipeError, ConnectionResetError):
                    socket.send_fds(channel, [b"."], descriptors)
                    return
                channel.close()
            channel = self._channels[server] = _start()
            socket.send_fds(channel, [b"."], descriptors)


@contextmanager
def _file_of(job: Job) -> Iterator[int]:
    """Yield a descriptor of a file that has all of a job but its descriptors."""
    environ = os.environ | dict(job.environ)
    with os.fdopen(os.memfd_create("job"), "r+b") as file:
        file.write(json.dumps([list(job.imports), environ, job.request.decode()]).encode())
        file.seek(0)
        yield file.fileno()


def _start() -> socket.socket:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        subprocess.Popen(
            [sys.executable, "-m", _SERVER, str(there.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"},
            pass_fds=(there.fileno(),),
            start_new_session=True,
        )
    return here
