"""Toy: runs a stage in a fork of doit's process, which starts no interpreter and imports nothing anew.

What a worker is beside that (its own environment, log, temporary folder, death with its parent) stays as it is.
"""

import json
import os
import signal
import sys

from sam3_build.execution import worker
from sam3_build.execution.launch import Ended, ForkServers

WORKERS = ForkServers()


def launch(job, started):
    """Run a job in a fork of this process; in a worker, where TOY_WORKERS is set."""
    if os.environ.get("TOY_WORKERS"):
        return WORKERS(job, started)
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _answer(job, writer, parent)
        finally:
            os._exit(code)
    os.close(writer)
    started(child)
    try:
        with os.fdopen(reader, "rb") as said:
            found = said.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), found)


def _answer(job, writer, parent):
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    worker.die_with(parent)
    for descriptor in (1, 2):
        os.dup2(job.log.fileno(), descriptor)
    os.environ.update(job.environ)
    try:
        return worker.answer(json.loads(job.request), writer)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
