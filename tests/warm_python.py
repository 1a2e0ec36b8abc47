"""A Python that has doit, other packages and this one's core loaded; a fork of it runs a command at once.

As a program: `warm_python <socket>`. Each request is JSON, with two descriptors for the output; the answers are
the process, when it began, and its exit status, when it ended.

A fork keeps the loaded core only when the project that it runs in has the same sources (`_adopt`).
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

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
    "typer.rich_utils",
    "yaml",
)
ROOT = Path(__file__).parents[1]
# Plug-ins, which every project has of its own, and what imports them.
LEFT_OUT = ("__main__", "backends", "commands.inspect", "families", "patches", "precisions", "stages")


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
    core = _load_core()
    _ask_entry_points_once()
    gc.collect()
    gc.freeze()
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
    _adopt(core)
    os.fsync = lambda descriptor: None  # no test cuts the power
    if importlib.util.find_spec("sitecustomize"):
        importlib.import_module("sitecustomize")
    sys.argv[1:] = argv
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        _end(end.code or 0)
    _end(0)


def _end(code: int) -> None:
    """End this process as Python does, but for taking apart all that is loaded."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# ------------------------------------------------------------------ this package


@dataclass(frozen=True)
class Core:
    """The modules that were imported from `ROOT`, by name, and every file that they came from or read: its bytes."""

    modules: dict[str, ModuleType]
    files: dict[str, bytes]


def _load_core() -> Core:
    """Import all of the package but plug-ins and what imports them; compile the report's templates."""
    sys.path.insert(0, str(ROOT))
    _load("sam3_build")
    page = importlib.import_module("sam3_build.report.html.page")
    page.template()
    del sys.path[0]
    modules = {name: module for name, module in sys.modules.items() if f"{name}.".startswith("sam3_build.")}
    plug_ins = [n for n in modules if f"{n}.".startswith(tuple(f"sam3_build.{left_out}." for left_out in LEFT_OUT))]
    assert not plug_ins, f"these were imported by what is not in LEFT_OUT: {plug_ins}"
    constants = [(f"{n}.{c}", v) for n, m in modules.items() for c, v in vars(m).items() if not c.startswith("__")]
    lost = [c for c, v in constants if not isinstance(v, ModuleType) and str(ROOT) in repr(_moved(v, Path("/")))]
    assert not lost, f"_moved does not know what {lost} are"
    paths = {*map(_file, modules.values()), *page.HERE.glob("page.*")}
    return Core(modules, {str(path.relative_to(ROOT)): path.read_bytes() for path in paths})


def _load(package: str) -> None:
    for entry in pkgutil.iter_modules(importlib.import_module(package).__path__):
        name = f"{package}.{entry.name}"
        if name.removeprefix("sam3_build.") in LEFT_OUT:
            continue
        if entry.ispkg:
            _load(name)
        else:
            importlib.import_module(name)


def _adopt(core: Core) -> None:
    """Make the loaded core the project's own, as if it had been imported from there; forget it when a file differs."""
    own = next((path for path in map(Path, sys.path) if (path / "sam3_build/__init__.py").is_file()), None)
    if own is None or any(_read(own / file) != source for file, source in core.files.items()):
        for name in core.modules:
            del sys.modules[name]
        return
    for module in core.modules.values():
        file = own / _file(module).relative_to(ROOT)
        module.__file__ = module.__spec__.origin = str(file)
        if hasattr(module, "__path__"):
            module.__path__ = [str(file.parent)]
        for name, value in vars(module).items():
            setattr(module, name, _moved(value, own))


def _moved(value: object, own: Path) -> object:
    """Return a constant of a module as it is in the project: paths lead there."""
    if isinstance(value, tuple):
        return tuple(_moved(item, own) for item in value) if any(isinstance(item, Path) for item in value) else value
    return own / value.relative_to(ROOT) if isinstance(value, Path) and value.is_relative_to(ROOT) else value


def _file(module: ModuleType) -> Path:
    assert module.__file__
    return Path(module.__file__)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _ask_entry_points_once() -> None:
    """Keep what the installed distributions offer to doit, which asks for it several times in every run."""
    import doit.plugin

    doit.plugin.entry_points = cache(doit.plugin.entry_points)
    for category in ("COMMAND", "LOADER", "BACKEND", "REPORTER"):
        doit.plugin.entry_points(group=f"doit.{category}")


if __name__ == "__main__":
    _main(int(sys.argv[1]))
