"""The fork server: imports what stages name, once, and runs each job that is handed to it in a fork of itself.

PyTorch alone takes longer to import than a small network to export. The server imports third-party packages and nothing
of a project: a fork loads plug-ins as any worker does. It ends with the process that started it, and its forks with it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from sam3_build.execution.worker import answer, die_with

_MOST_DESCRIPTORS = 16


@dataclass(frozen=True)
class _Fork:
    """A job that runs. ended: becomes readable when it has ended; client: when whoever asked for it has given it up."""

    process: int
    ended: int
    client: socket.socket

    def kill(self) -> None:
        # Until it is reaped, its number cannot belong to another group.
        os.killpg(self.process, signal.SIGKILL)

    def reap(self) -> None:
        """End what the job left running, and say how it ended itself."""
        self.kill()
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        with suppress(BrokenPipeError):
            self.client.send(str(code).encode())
        self.close()

    def close(self) -> None:
        os.close(self.ended)
        self.client.close()


def _serve(channel: socket.socket) -> None:
    """Start what is asked for, until nobody can ask any more; then end what runs."""
    forks: list[_Fork] = []
    while True:
        watched = [channel.fileno(), *(f.ended for f in forks), *(f.client.fileno() for f in forks)]
        ready, _, _ = select.select(watched, [], [])
        for fork in list(forks):
            if fork.ended in ready:
                fork.reap()
                forks.remove(fork)
            elif fork.client.fileno() in ready:
                fork.kill()
        if channel.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(channel, 1, _MOST_DESCRIPTORS)
            if not message:
                for fork in forks:
                    fork.kill()
                return
            forks.append(_fork(descriptors, channel, forks))


def _fork(descriptors: Sequence[int], channel: socket.socket, others: Sequence[_Fork]) -> _Fork:
    """Import what a job needs, on the server, and run it in a fork."""
    request, log, writer, client, *_ = descriptors
    with os.fdopen(request) as file:
        imports, environ, body = json.load(file)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    _write_to(log)
    for module in imports:
        with suppress(ImportError):  # the stage says it better
            importlib.import_module(module)
    gc.freeze()  # what is loaded is walked by no collection of a fork
    server, process = os.getpid(), os.fork()
    if process == 0:
        channel.close()
        for fork in others:
            fork.close()
        os.close(client)
        _run(body, environ, writer, server)
    _write_to(nowhere)
    for descriptor in (nowhere, *(d for d in descriptors if d not in (request, client))):
        os.close(descriptor)
    answers = socket.socket(fileno=client)
    answers.send(str(process).encode())
    return _Fork(process, os.pidfd_open(process), answers)


def _write_to(descriptor: int) -> None:
    for standard in (1, 2):
        os.dup2(descriptor, standard)


def _run(body: str, environ: dict[str, str], writer: int, server: int) -> NoReturn:
    """Do in a fork what a worker does, and end."""
    code = 70
    try:
        os.setsid()
        die_with(server)
        os.environ.clear()
        os.environ.update(environ)
        code = answer(json.loads(body), writer)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
