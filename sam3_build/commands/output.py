"""Standard output and error whose reader may close them: what is written then is lost, and the work goes on.

`sam3-build plan | head -1` ends without a traceback, and `doit build | head -1` builds all that it was asked for; the
exit code is what it would have been.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

# A pipe without a reader, a terminal that was closed.
NOBODY_READS = frozenset({errno.EPIPE, errno.EIO})


def outlive_readers() -> list[OSError]:
    """Make sys.stdout and sys.stderr survive that they cannot be written any more, also when Python exits.

    The streams themselves are changed and not replaced: doit keeps the ones that it found when it was imported. The
    list returned gets each error by which output was lost that somebody waits for, such as a full disk; it is said.
    """
    lost: list[OSError] = []
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a process may be started without one
            _guard(stream, lost)
    return lost


def fail_at_exit(lost: list[OSError]) -> None:
    """Make Python exit with 120 when output was lost, for a program that chooses its exit code itself, as doit does.

    Python exits so when a standard stream cannot be flushed at the end. It flushes stderr last, and prints nothing of
    an error in it.
    """
    stream = sys.stdout if sys.stderr is None else sys.stderr
    if stream is None:
        return
    flush = stream.flush

    def failing_flush() -> None:
        flush()
        if lost and sys.is_finalizing():
            raise lost[0]

    vars(stream).update(flush=failing_flush)


def _guard(stream: TextIO, lost: list[OSError]) -> None:
    write, flush = stream.write, stream.flush

    def guarded_write(text: str) -> int:
        try:
            return write(text)
        except OSError as error:
            discard(error)
            return len(text)

    def guarded_flush() -> None:
        try:
            flush()
        except OSError as error:
            discard(error)

    def discard(error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # takes what the stream still holds, and all that follows
        os.close(nowhere)
        if error.errno not in NOBODY_READS:
            lost.append(error)
            if sys.stderr is not None:
                sys.stderr.write(f"cannot write to {stream.name}: {error.strerror}; the rest of the output is lost\n")

    vars(stream).update(write=guarded_write, flush=guarded_flush)
