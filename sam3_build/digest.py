"""Takes JSON documents, files and Python modules, returns sha256 digests (hex); remembers those of files by stat."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.folders import write_atomically
from sam3_build.layers import CORE, RUN_ONLY
from sam3_build.spec import Json

PACKAGE = Path(__file__).parent

KEY_VERSION = 1

# What a plug-in declares of itself that changes nothing that is written, by the class of the declaration.
NO_RECIPE = {
    "Layout": ("published_as",),
    "ModelFamily": ("licence",),
    "Precision": ("summary", "gates"),
    "ResultKind": ("summary", "metrics"),
    "Stage": ("summary", "memory", "imports"),
}

# A file whose times are younger than this may still change without its stat changing; its digest is not remembered yet.
_RACY_NS = 100_000_000
# The same where times may be whole seconds (HFS+, ext4 with small inodes, some servers) or every second one (FAT).
_COARSE_RACY_NS = 2_000_000_000 + _RACY_NS
_BLOCK = 1 << 22
# A source file above this size is read in blocks of that size by several threads: a touched checkpoint costs a second.
_LARGE, _PART = 1 << 28, 1 << 25
# Inodes come and go; a cache that grew past this starts anew.
_MOST_ENTRIES = 50_000
# Raise it when what an earlier version remembered is no longer valid.
_CACHE_VERSION = 2


def canonical(document: Json) -> bytes:
    """Return the one JSON text of `document` (sorted keys, no spaces, ASCII). ValueError on NaN or infinity."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(document: Json) -> str:
    """Return the sha256 (hex) of the canonical JSON of `document`."""
    return hashlib.sha256(canonical(document)).hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 (hex) of the bytes of the file at `path`."""
    sha = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()


def tree_digest(path: Path) -> str:
    """Return the sha256 (hex) of the digests of a file's blocks: another one than `file_digest` gives, in less time."""
    from concurrent.futures import ThreadPoolExecutor

    starts = range(0, path.stat().st_size, _PART)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = list(pool.map(lambda start: _block_digest(path, start), starts))
    return digest({"block": _PART, "blocks": blocks})


def _block_digest(path: Path, start: int) -> str:
    sha, left = hashlib.sha256(), _PART
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left and (data := file.read(min(_BLOCK, left))):
            sha.update(data)
            left -= len(data)
    return sha.hexdigest()


class DigestCache:
    """Digests of files and modules, remembered by device and inode with (size, mtime_ns, ctime_ns).

    ctime cannot be set back, so an edit that keeps size and mtime is still seen. A file that was saved a moment ago may
    be saved again and keep its times: it is read each time that it is asked for, until it is older than a step of them.
    No path is stored: the cache survives a rename and is useless, never wrong, in a copied checkout.
    """

    def __init__(self, path: Path) -> None:
        """Read what an earlier process remembered at `path`; an unreadable cache is an empty one."""
        self._path = path
        self._lock = threading.Lock()
        self._known = self._read()
        self._new: dict[str, list[Json]] = {}

    def _read(self) -> dict[str, list[Json]]:
        try:
            cache = json.loads(self._path.read_bytes())
            known = cache["files"] if cache["version"] == _CACHE_VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return known if isinstance(known, dict) else {}

    def _look_up(self, kind: str, stat: os.stat_result, read: Callable[[], list[Json]]) -> list[Json]:
        """Return what is remembered of a file whose stat is `stat`, else what `read` returns, and remember that."""
        slot = f"{kind}:{stat.st_dev}:{stat.st_ino}"
        state: list[Json] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        entry = self._known.get(slot)
        if entry and entry[:3] == state:
            return entry[3:]
        settled = _is_settled(stat, time.time_ns())  # before reading, which may take long enough for another save
        found = read()
        if settled:
            with self._lock:
                self._known[slot] = self._new[slot] = [*state, *found]
        return found

    def file(self, path: Path | str) -> str:
        """Return the sha256 of the file at `path`, reading it only when its stat changed. OSError when it is gone."""
        stat = os.stat(path)  # noqa: PTH116  (Path.stat costs twice as much, and this is the no-op's inner loop)
        return str(self._look_up("file", stat, lambda: [file_digest(Path(path))])[0])

    def source(self, path: Path) -> str:
        """Return what stands for the bytes of a source file in a key: their sha256, of a large file its tree digest."""
        stat = path.stat()
        if stat.st_size <= _LARGE:
            return self.file(path)
        return str(self._look_up("tree", stat, lambda: [tree_digest(path)])[0])

    def module(self, name: str) -> tuple[str, tuple[str, ...]]:
        """Return (digest of the syntax tree without docstrings, the sam3_build modules it imports).

        `name` is relative to the package, e.g. `stages.export`. Comments and layout do not count.
        """
        path = _module_path(name)
        known = self._look_up("module", path.stat(), lambda: _read_module(path))
        return str(known[0]), tuple(str(k) for k in known[1:])

    def recipe(self, names: tuple[str, ...]) -> dict[str, str]:
        """Return module -> digest for `names` and all that they import inside the package.

        Modules of the core are left out, and of a build those that only run what it makes.
        """
        unused = RUN_ONLY if "stages.build" in names else frozenset[str]()
        found: dict[str, str] = {}
        queue = list(names)
        while queue:
            name = queue.pop()
            if name in found or name in unused or name.split(".")[0] in CORE:
                continue
            found[name], imports = self.module(name)
            queue.extend(imports)
        return found

    def save(self) -> None:
        """Write what was learnt, merged with what others wrote. A cache that cannot be written is only slower."""
        if not self._new:
            return
        with self._lock:
            merged = self._read() | self._new
            if len(merged) > _MOST_ENTRIES:
                merged = self._new
            try:
                cache = canonical({"version": _CACHE_VERSION, "files": merged})
                write_atomically(self._path, cache, durable=False)
            except OSError:
                return
            self._new = {}


def _module_path(name: str) -> Path:
    path = PACKAGE.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_settled(stat: os.stat_result, now: int) -> bool:
    """Whether whoever saves the file after `now` (nanoseconds) must leave it with other times than `stat` has.

    A time that lies ahead is some other clock's, and tells nothing. Old Linux has no ctime on FAT, so that both count.
    """
    coarse = stat.st_ctime_ns % 1_000_000_000 == 0 or stat.st_mtime_ns % 1_000_000_000 == 0
    return now - max(stat.st_ctime_ns, stat.st_mtime_ns) > (_COARSE_RACY_NS if coarse else _RACY_NS)


def _read_module(path: Path) -> list[Json]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise BuildError(f"{path}:{error.lineno}: this is not Python: {error.msg}") from error
    return [_tree_digest(tree), *_imports(tree)]


def _tree_digest(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NO_RECIPE:
            node.keywords = [k for k in node.keywords if k.arg not in NO_RECIPE[node.func.id]]
        elif isinstance(node, ast.JoinedStr):  # Python 3.12 ends some f-strings with an empty constant
            node.values = [v for v in node.values if not isinstance(v, ast.Constant) or v.value != ""]
    return digest(_plain(tree))


def _plain(node: object) -> Json:
    """Return a syntax tree as JSON. ast.dump is not used: what it prints differs between Python versions."""
    if isinstance(node, ast.AST):
        fields = {name: _plain(value) for name, value in ast.iter_fields(node) if value not in (None, [])}
        return {"": type(node).__name__, **fields}
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return node if isinstance(node, str | int | bool) else [type(node).__name__, repr(node)]


def _imports(tree: ast.Module) -> list[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sam3_build":
            base = node.module.removeprefix("sam3_build").removeprefix(".")
            for alias in node.names:
                nested = f"{base}.{alias.name}".removeprefix(".")
                found.add(nested if _module_path(nested).is_file() else base)
        elif isinstance(node, ast.Import):
            found.update(a.name.removeprefix("sam3_build.") for a in node.names if a.name.startswith("sam3_build."))
    return sorted(found - {""})
