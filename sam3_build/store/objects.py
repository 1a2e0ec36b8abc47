"""The artifact store: records and content-addressed objects under one folder. The only writer there.

    objects/<ab>/<digest>/     a folder of files under their final names, read-only
    records/<ab>/<key>.json    action key -> object digest, with the document that the key is the digest of
    names/<checkout>/<manifest>/<action>.json  the last keys of an action name, newest first (for explain and gc)
    locks/<key>                flock: who holds it owns tmp/<key>, and nobody else builds that key

Commit is temp folder, fsync, rename, record last: a kill at any instant leaves the old state or the new one.
A store that others made is used as far as it may be read; what is made in one that a group may write to is the group's.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sam3_build.digest import DigestCache, canonical, digest, file_digest
from sam3_build.errors import DeniedError, StoreError
from sam3_build.folders import is_shared, make_folder, share, sync_folder, write_atomically
from sam3_build.machine.locks import NO_LOCKS
from sam3_build.spec import Input, Json
from sam3_build.store.writing import LOCAL_STORE, NO_LOCKS_HERE, held, store_error, writing

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

    def content(self, source: Input) -> str | None:
        """Return the digest of what an input reads of this output; None where it has no such file or subfolder."""
        if source.folder:
            own = {n: f.sha256 for n, f in self.files.items() if n.startswith(f"{source.folder}/")}
            return digest(own) if own else None
        if source.file:
            return self.files[source.file].sha256 if source.file in self.files else None
        return self.object


class Store:
    """Reads and writes one store folder. Reading needs no permission to write; a missing folder is an empty store."""

    def __init__(self, root: Path, digests: DigestCache, checkout: str) -> None:
        """Open the store at `root` for the checkout called `checkout`; nothing is created before the first write."""
        self.root = root
        self.digests = digests
        self._checkout = checkout
        self._unheld: DeniedError | None = None  # why garbage collection is not held off
        self._noted = threading.Lock()  # taken for good by who notes that not all of the store may be written
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
            raise store_error(error, path, self._advice()) from error

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

        A store that cannot be written is not collected either: what it has can be used without a lock. So can one whose
        lock alone may not even be read; nothing is built into that one.
        """
        with ExitStack() as held:
            if not self.read_only:
                try:
                    held.enter_context(self._flock("gc", fcntl.LOCK_SH))
                except DeniedError as error:
                    self._unheld = error
                    self._note(error)
            yield

    @contextmanager
    def exclusive(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Wait until nobody builds (`waiting` is called when somebody does), and let nobody begin: for collection."""
        with self._flock("gc", fcntl.LOCK_EX, waiting):
            yield

    @contextmanager
    def lock(self, name: str, waiting: Callable[[], None] | None = None) -> Iterator[int]:
        """Hold the lock called `name` and yield its descriptor (a child that inherits it holds it too).

        `waiting` is called once when somebody else holds it; then this waits. DeniedError where the store is only read.
        """
        if self._unheld:
            raise self._unheld
        with self._flock(name, fcntl.LOCK_EX, waiting) as descriptor:
            yield descriptor

    @contextmanager
    def _flock(self, name: str, kind: int, waiting: Callable[[], None] | None = None) -> Iterator[int]:
        path = self.root / "locks" / name
        with self._writing(path):
            make_folder(path.parent, self.root)
        with held(path, kind, waiting, self._advice()) as descriptor:
            yield descriptor

    def workdir(self, key: str) -> Path:
        """Return an empty folder for the holder of the lock of `key`, whatever a killed run left there.

        DeniedError when what is made in it could not be kept: before the work, not after it.
        """
        path = self.root / "tmp" / key
        with self._writing(path):
            records = self._record_path(key).parent
            for folder in (records if records.is_dir() else records.parent, *_folders(Path(self._objects))):
                if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
            if path.is_dir():
                shutil.rmtree(path)
            make_folder(path, self.root)
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
        with self._writing(out):
            files = {str(p.relative_to(out)): self._seal(p) for p in _plain_files(out)}
            if not files:
                raise StoreError(f"{action}: produced no file")
            for folder in (*(p for p in out.iterdir() if p.is_dir()), out):
                share(folder, self.root)
                sync_folder(folder)
            content = digest({name: fact.sha256 for name, fact in files.items()})
            self._adopt(out, self.object_path(content), files)
            record = Record(key, action, document, content, files, facts, provenance)
            self._write(self._record_path(key), canonical(asdict(record)))
        self.digests.save()
        return record

    def _seal(self, path: Path) -> FileFact:
        path.chmod(0o444)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return FileFact(self.digests.file(path), path.stat().st_size)

    def _adopt(self, out: Path, target: Path, files: Mapping[str, FileFact]) -> None:
        """Rename `out` to `target`; an equal object that is already there stays, a damaged one is replaced."""
        make_folder(target.parent, self.root)
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
        """Keep `key` as the newest of an action name. A store that cannot be written keeps no history."""
        if self.read_only:
            return
        keys = self.history(manifest, action)
        if keys[:1] != (key,):
            newest = [key, *(k for k in keys if k != key)][:HISTORY]
            path = self._history_path(manifest, action)
            try:
                with self._writing(path):
                    self._write(path, canonical(newest))
            except DeniedError as error:
                self._note(error)

    def _write(self, path: Path, data: bytes) -> None:
        make_folder(path.parent, self.root)
        write_atomically(path, data)

    def _note(self, error: DeniedError) -> None:
        """Say, once, that the store is only read where it may not be written."""
        if self._noted.acquire(blocking=False):
            sys.stderr.write(f"  note  {self.root} is read, and written as far as it may be: {error}\n")

    def _writing(self, path: Path) -> AbstractContextManager[None]:
        return writing(path, self._advice())

    def _advice(self) -> Mapping[int, str]:
        advice = dict.fromkeys(NO_LOCKS, NO_LOCKS_HERE + LOCAL_STORE)
        if is_shared(self.root):
            top = shlex.quote(str(self.root))
            but_objects = r"\( -type d -o ! -path '*/objects/*' \)"
            give = f"find {top} -exec chgrp --reference={top} {{}} + {but_objects} -exec chmod g+rwX {{}} +"
            denied = f"its group may write to {self.root} and not there: let the owner run `{give}`"
            advice |= dict.fromkeys((errno.EACCES, errno.EPERM), f"{denied}, or set SAM3_STORE to a folder of yours")
        return advice


def read_history(path: Path) -> tuple[str, ...]:
    """Return the keys that a file below `names/` lists, newest first; none when it cannot be read."""
    try:
        return tuple(str(key) for key in json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return ()


def _plain_files(out: Path) -> list[Path]:
    """Return the files of an output, which may have one level of subfolders. StoreError for anything else."""
    entries = sorted(p for top in out.iterdir() for p in (top.iterdir() if _is_folder(top) else (top,)))
    for path in entries:
        if not path.is_file() or path.is_symlink():
            raise StoreError(f"{path.relative_to(out)}: an action's output is plain files, in one level of subfolders")
    return entries


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _folders(path: Path) -> list[Path]:
    return [path, *(Path(found) for found in os.scandir(path))] if path.is_dir() else [path.parent]


def _same(folder: Path, files: Mapping[str, FileFact]) -> bool:
    try:
        return all(file_digest(folder / name) == fact.sha256 for name, fact in files.items())
    except OSError:
        return False
