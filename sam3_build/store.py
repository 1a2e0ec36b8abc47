"""The artifact store: records and content-addressed objects under one folder. The only writer there.

    objects/<ab>/<digest>/     a folder of files under their final names, read-only
    records/<ab>/<key>.json    action key -> object digest, with the document that the key is the digest of
    names/<checkout>/<manifest>/<action>.json  the last keys of an action name, newest first (for explain and gc)
    locks/<key>                flock: who holds it owns tmp/<key>, and nobody else builds that key

Commit is temp folder, fsync, rename, record last: a kill at any instant leaves the old state or the new one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from sam3_build.digest import DigestCache, canonical, digest, file_digest
from sam3_build.errors import StoreError
from sam3_build.spec import Json

HISTORY = 8


@dataclass(frozen=True)
class FileFact:
    """What is known of one file of an object: sha256 (hex) and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Record:
    """The result of one action. `document` is the pre-image of `key`; `provenance` (when, how long) enters no key."""

    key: str
    action: str
    document: Mapping[str, Json]
    object: str
    files: Mapping[str, FileFact]
    facts: Mapping[str, Json]
    provenance: Mapping[str, Json]

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return sum(f.size for f in self.files.values())


class Store:
    """Reads and writes one store folder. Reading needs no permission to write; a missing folder is an empty store."""

    def __init__(self, root: Path, digests: DigestCache, checkout: str) -> None:
        """Open the store at `root` for the checkout called `checkout`; nothing is created before the first write."""
        self.root = root
        self.digests = digests
        self._checkout = checkout
        # Strings, because joining Path objects would cost more than reading the files does.
        self._objects, self._records = f"{root}/objects", f"{root}/records"

    # ------------------------------------------------------------ reading

    def object_path(self, digest_: str) -> Path:
        """Return the folder of an object, whether it exists or not."""
        return Path(f"{self._objects}/{digest_[:2]}/{digest_}")

    def _record_path(self, key: str) -> Path:
        return Path(f"{self._records}/{key[:2]}/{key}.json")

    def record(self, key: str) -> Record | None:
        """Return the record of `key`, or None when there is none or it cannot be read as one."""
        return self._load(self._record_path(key))

    def _load(self, path: Path) -> Record | None:
        try:
            data = json.loads(path.read_bytes())
            files = {name: FileFact(**fact) for name, fact in data.pop("files").items()}
            return Record(files=files, **data)
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError, AttributeError):
            return None
        except OSError as error:
            raise _store_error(error, path) from error

    def intact(self, record: Record) -> bool:
        """Tell whether every file of the record's object still has its digest (reads only what changed since)."""
        folder = f"{self._objects}/{record.object[:2]}/{record.object}"
        try:
            return all(self.digests.file(f"{folder}/{name}") == fact.sha256 for name, fact in record.files.items())
        except OSError:
            return False

    def history(self, manifest: str, action: str) -> tuple[str, ...]:
        """Return the last keys of an action name under a manifest, newest first."""
        return read_history(self._history_path(manifest, action))

    def _history_path(self, manifest: str, action: str) -> Path:
        return self.root / "names" / self._checkout / manifest / f"{action.replace(':', '.')}.json"

    # ------------------------------------------------------------ writing

    @property
    def read_only(self) -> bool:
        """Whether there is a store and this process may not write to it."""
        return self.root.is_dir() and not os.access(self.root, os.W_OK)

    @contextmanager
    def using(self) -> Iterator[None]:
        """Hold off garbage collection while something is built from and into this store.

        A store that cannot be written is not collected either: what it has can be used without a lock.
        """
        if self.read_only:
            yield
        else:
            with self._flock("gc", fcntl.LOCK_SH):
                yield

    @contextmanager
    def exclusive(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Wait until nobody builds (`waiting` is called when somebody does), and let nobody begin: for collection."""
        with self._flock("gc", fcntl.LOCK_EX, waiting):
            yield

    @contextmanager
    def lock(self, name: str, waiting: Callable[[], None] | None = None) -> Iterator[int]:
        """Hold the lock called `name` and yield its descriptor (a child that inherits it holds it too).

        `waiting` is called once when somebody else holds it; then this waits.
        """
        with self._flock(name, fcntl.LOCK_EX, waiting) as descriptor:
            yield descriptor

    def _flock(self, name: str, kind: int, waiting: Callable[[], None] | None = None) -> AbstractContextManager[int]:
        return hold(self.root / "locks" / name, kind, waiting)

    def workdir(self, key: str) -> Path:
        """Return an empty folder for the holder of the lock of `key`, whatever a killed run left there."""
        path = self.root / "tmp" / key
        with writing(path):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        return path

    def discard(self, workdir: Path) -> None:
        """Remove a work folder (nothing in it was committed)."""
        shutil.rmtree(workdir, ignore_errors=True)

    def commit(
        self,
        *,
        key: str,
        action: str,
        document: Mapping[str, Json],
        out: Path,
        facts: Mapping[str, Json],
        provenance: Mapping[str, Json],
    ) -> Record:
        """Make the folder `out` an object, then write the record of `key`. The caller holds the lock of `key`."""
        with writing(out):
            files = {p.name: self._seal(p) for p in sorted(out.iterdir())}
            if not files:
                raise StoreError(f"{action}: produced no file")
            sync_folder(out)
            content = digest({name: fact.sha256 for name, fact in files.items()})
            self._adopt(out, self.object_path(content), files)
            record = Record(key, action, document, content, files, facts, provenance)
            write_atomically(self._record_path(key), canonical(asdict(record)))
        self.digests.save()
        return record

    def _seal(self, path: Path) -> FileFact:
        if not path.is_file() or path.is_symlink():
            raise StoreError(f"{path.name}: an action's output is a flat folder of plain files")
        path.chmod(0o444)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return FileFact(self.digests.file(path), path.stat().st_size)

    def _adopt(self, out: Path, target: Path, files: Mapping[str, FileFact]) -> None:
        """Rename `out` to `target`; an equal object that is already there stays, a damaged one is replaced."""
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(10):
            try:
                out.rename(target)
                sync_folder(target.parent)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if _same(target, files):
                return
            aside = out.with_name("damaged")
            shutil.rmtree(aside, ignore_errors=True)
            target.rename(aside)
        raise StoreError(f"{target}: other processes keep replacing this object; run again")

    def remember(self, manifest: str, action: str, key: str) -> None:
        """Note `key` as the newest of an action name. A store that cannot be written keeps no history."""
        if self.read_only:
            return
        keys = self.history(manifest, action)
        if keys[:1] != (key,):
            newest = [key, *(k for k in keys if k != key)][:HISTORY]
            path = self._history_path(manifest, action)
            with writing(path):
                write_atomically(path, canonical(newest))


@contextmanager
def hold(path: Path, kind: int, waiting: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold the flock of the file at `path` (fcntl.LOCK_SH or LOCK_EX); call `waiting` once when it is not free."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                waiting()
            fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)


def read_history(path: Path) -> tuple[str, ...]:
    """Return the keys that a file below `names/` lists, newest first; none when it cannot be read."""
    try:
        return tuple(str(key) for key in json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return ()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the body into a StoreError that says where and what to do."""
    try:
        yield
    except OSError as error:
        raise _store_error(error, path) from error


def _store_error(error: OSError, path: Path) -> StoreError:
    where = error.filename or path
    advice = {
        errno.ENOSPC: "free some space (`sam3-build gc` may help) or set SAM3_STORE to another disk",
        errno.EDQUOT: "free some space or set SAM3_STORE to another disk",
        errno.EROFS: "it is read-only: set SAM3_STORE to a folder that can be written",
        errno.EACCES: "you may not write there: fix its permissions or set SAM3_STORE to a folder of yours",
        errno.EPERM: "you may not write there: fix its permissions or set SAM3_STORE to a folder of yours",
    }
    said = os.strerror(error.errno) if error.errno else str(error)
    return StoreError(f"{where}: {said}; {advice.get(error.errno or 0, 'check this folder')}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` by a synced temporary file and a rename: readers see the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{id(data):x}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            sync_file(file)
        scratch.replace(path)
        sync_folder(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def sync_file(file: IO[bytes]) -> None:
    """Flush a file down to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries down to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same(folder: Path, files: Mapping[str, FileFact]) -> bool:
    try:
        return all(file_digest(folder / name) == fact.sha256 for name, fact in files.items())
    except OSError:
        return False
