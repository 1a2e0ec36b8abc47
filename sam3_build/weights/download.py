"""A file at a URL: takes its sha256, returns where it lies on this machine, downloaded once for everybody.

Files lie by their digest below HF_HOME, beside the hub's, and the hub's settings hold for them: HF_HUB_OFFLINE,
HF_HUB_DOWNLOAD_TIMEOUT, HTTPS_PROXY. A download that broke off goes on where it stopped (HTTP Range, RFC 9110 section
14), also in a later run. No token is sent.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.digest import file_digest
from sam3_build.errors import BuildError
from sam3_build.folders import make_folder, share
from sam3_build.machine.locks import NO_LOCKS, open_lock, take
from sam3_build.weights.files import name_of

if TYPE_CHECKING:
    from httpx2 import Response

# How often in a row a server may send nothing, and for how many seconds it is left alone after each time.
ATTEMPTS = 5
PAUSE = 2.0

# Answers of a server that may be another one in a moment.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

# A line of the log per so many bytes.
STEP = 100_000_000

logger = logging.getLogger(__name__)


class _BrokenError(Exception):
    """The connection ended before the file did, or the server asks to come again."""


def find(url: str, sha256: str) -> Path | None:
    """Return the file of this digest that was downloaded before, by whatever name; None where there is none."""
    files = sorted((_cache() / sha256).glob(f"*{Path(name_of(url)).suffix}"))
    return files[0] if files else None


def get(url: str, sha256: str, pause: Callable[[float], None] = time.sleep) -> Path:
    """Return where the file at `url` lies, downloading it when the cache does not hold it. Its bytes are verified.

    BuildError when it cannot be had, or when its sha256 (hex) is another one; then nothing of it is kept.
    """
    name, cache = name_of(url), _cache()
    try:
        make_folder(cache / sha256, cache)
        with _locked(cache / f"{sha256}.lock", name):
            found = find(url, sha256)
            if found and file_digest(found) == sha256:
                logger.info("%s is in %s", name, cache)
                return found
            if found:
                logger.warning("%s in %s is damaged: downloading it again", found.name, cache)
                found.unlink()
            partial = cache / f"{sha256}.partial"
            _fill(url, sha256, partial, pause)
            share(partial, cache)
            return partial.replace(cache / sha256 / name)
    except OSError as error:
        raise _refusal(error, url, sha256) from error


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "sam3_build"


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    descriptor = open_lock(path)
    try:
        take(descriptor, fcntl.LOCK_EX, lambda: logger.info("%s: another process downloads it; waiting", name))
        yield
    finally:
        os.close(descriptor)


def _fill(url: str, sha256: str, partial: Path, pause: Callable[[float], None]) -> None:
    """Download to `partial`, after what an earlier run left there, until it has the digest; remove it when it has not.

    What an earlier run left may be of another file: where the whole is wrong, all of it is downloaded once more.
    """
    is_new = _size(partial) == 0
    while True:
        _download(url, sha256, partial, pause)
        if (actual := file_digest(partial)) == sha256:
            return
        size = _size(partial)
        partial.unlink()
        if is_new:
            raise BuildError(
                f"{url} is another file than the manifest asks for: {size} bytes with the sha256 {actual}, not "
                f"{sha256}. Check 'url:' and 'sha256:' against what its publisher says; nothing was kept"
            )
        logger.warning("%s: what an earlier run left does not fit; downloading all of it", name_of(url))
        is_new = True


def _download(url: str, sha256: str, partial: Path, pause: Callable[[float], None]) -> None:
    """Ask until the server has sent everything. BuildError when it refuses, or sends nothing several times in a row."""
    from httpx2 import RequestError

    idle = 0
    while True:
        before = _size(partial)
        try:
            return _stream(url, partial)
        except (RequestError, _BrokenError) as error:
            idle = 0 if _size(partial) > before else idle + 1
            if idle == ATTEMPTS:
                raise _refusal(error, url, sha256) from error
            logger.warning("%s: %s after %s; going on", name_of(url), _words(error), _megabytes(_size(partial)))
            pause(PAUSE * idle)


def _stream(url: str, partial: Path) -> None:
    """Append to `partial` what it lacks; a server that knows no ranges sends the whole file again."""
    from huggingface_hub import constants, get_session

    begin = _size(partial)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={begin}-"} if begin else {})}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        if begin and response.status_code == 416:  # there is nothing behind what we have
            return
        if response.status_code in PASSING:
            raise _BrokenError(f"HTTP {response.status_code}")
        if response.status_code not in (200, 206):
            raise BuildError(_refused(url, response.status_code))
        start, total = _range(response)
        if start not in (0, begin):
            raise BuildError(f"{url}: the server was asked for the bytes from {begin} on, and sends those from {start}")
        if begin and start == 0:
            logger.info("%s: the server cannot go on at %s: all of it again", name_of(url), _megabytes(begin))
        with partial.open("ab" if start else "wb") as file:
            _copy(response, file.write, name_of(url), start, total)
    if total is not None and _size(partial) < total:
        raise _BrokenError("the connection ended")


def _copy(response: Response, write: Callable[[bytes], int], name: str, start: int, total: int | None) -> None:
    done, of_total = start, f" of {_megabytes(total)}" if total else ""
    logger.info("%s: %s%s", name, _megabytes(done), of_total)
    for block in response.iter_raw():  # as it arrives: a break loses nothing that was sent
        write(block)
        steps, done = done // STEP, done + len(block)
        if done // STEP > steps or done == total:
            logger.info("%s: %s%s", name, _megabytes(done), of_total)


def _range(response: Response) -> tuple[int, int | None]:
    """Return where in the file an answer begins, and how long the file is, if the server says so."""
    if response.status_code == 206:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if given is None:
            raise _BrokenError("an answer to a request for a range does not say which one it is")
        return int(given[1]), None if given[2] == "*" else int(given[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


# ------------------------------------------------------------------ what can go wrong

_INSTEAD = "or download it elsewhere and name the file with 'path:'"


def _refused(url: str, status: int) -> str:
    if status in (401, 403):
        return f"the server refuses {url} (HTTP {status}): it may want an account; {_INSTEAD.removeprefix('or ')}"
    if status in (404, 410):
        return f"the server has no {url} (HTTP {status}): check 'url:', {_INSTEAD}"
    return f"the server answers HTTP {status} for {url}; try again later, {_INSTEAD}"


def _refusal(error: Exception, url: str, sha256: str) -> BuildError:
    """Say what to do about `error`."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    cache = _cache()
    if isinstance(error, OfflineModeIsEnabled):
        return BuildError(
            f"HF_HUB_OFFLINE is set, and {cache} does not hold {name_of(url)} (sha256 {sha256}): unset it for the "
            f"first build, set HF_HOME to the folder that has it, {_INSTEAD}"
        )
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return BuildError(f"no space left for {name_of(url)} in {cache}; free some, or set HF_HOME to another disk")
        if error.errno in NO_LOCKS:
            return BuildError(f"{cache} lies on a file system without locks; set HF_HOME to another disk")
        why = error.strerror or str(error)
        return BuildError(f"cannot write {name_of(url)} to {cache} ({why}): set HF_HOME to a folder of yours")
    return BuildError(f"cannot get {url} ({_words(error)}): check the network and HTTPS_PROXY, {_INSTEAD}")


def _words(error: Exception) -> str:
    message = " ".join(str(error).split())[:200]
    return message if isinstance(error, _BrokenError) else f"{type(error).__name__}: {message}"
