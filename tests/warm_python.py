"""A Python that has doit and other packages loaded, and nothing of this one; a fork of it runs a command at once.

As a program: `warm_python <socket>`. Each request is JSON, with two descriptors for the output; the answers are
the process, when it began, and its exit status, when it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache

# What doit or `sam3-build` load in every run.
PACKAGES = (
    "ctypes",
    "doit.cmd_clean",
    "doit.cmd_list",
    "doit.cmd_run",
    "doit.doit_cmd",
    "doit.loader",
    "email.parser",
    "importlib.metadata",
    "jinja2",
    "logging",
    "psutil",
    "shlex",
    "sqlite3",
    "typer",
    "yaml",
)


def run(
    module: str, argv: list[str], cwd: str, environ: dict[str, str], mix: bool, timeout: float = 120
) -> tuple[int, str]:
    """Do as `python -m module *argv` does; return its exit status and output, stderr last unless `mix`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        channel = _channel()
        channel.settimeout(timeout)
        umask = os.umask(0)
        os.umask(umask)
        request = json.dumps([module, argv, cwd, environ, umask]).encode()
        socket.send_fds(channel, [request], [out.fileno(), (out if mix else err).fileno()])
        process = int(channel.recv(16))
        try:
            status = int(channel.recv(16))
        except TimeoutError:
            os.killpg(process, signal.SIGKILL)
            channel.recv(16)
            raise
        said = b""
        for file in (out, err):
            file.seek(0)
            said += file.read()
    return os.waitstatus_to_exitcode(status), said.decode()


@cache
def _channel() -> socket.socket:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    subprocess.Popen(
        [sys.executable, "-P", __file__, str(there.fileno())],
        pass_fds=(there.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=kept | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},  # as workers have it
        cwd="/",
    )
    there.close()
    return here


def _main(descriptor: int) -> None:
    for name in PACKAGES:
        importlib.import_module(name)
    assert not any(name.partition(".")[0] == "sam3_build" for name in sys.modules)
    channel = socket.socket(fileno=descriptor)
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 2)
        if not request:
            return
        child = os.fork()
        if child == 0:
            break
        channel.send(str(child).encode())
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(os.waitpid(child, 0)[1]).encode())
    channel.close()
    module, argv, cwd, environ, umask = json.loads(request)
    os.setsid()
    os.umask(umask)
    for number, descriptor in zip((1, 2), descriptors, strict=True):
        os.dup2(descriptor, number)
        if descriptor > 2:
            os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    sys.path[:0] = [cwd, *environ["PYTHONPATH"].split(os.pathsep)]
    importlib.invalidate_caches()
    if importlib.util.find_spec("sitecustomize"):
        importlib.import_module("sitecustomize")
    sys.argv[1:] = argv
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
