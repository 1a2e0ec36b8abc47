"""Digests: what counts and what does not, and that a remembered digest is never a wrong one."""

from __future__ import annotations

import ast
import hashlib
import os
import textwrap
import time
from pathlib import Path

import pytest

from sam3_build import digest as digests
from sam3_build.digest import DigestCache, canonical, digest, file_digest
from sam3_build.errors import BuildError
from sam3_build.layers import RUN_ONLY

SNIPPET = '''
"""A module."""
from __future__ import annotations

import os as system

LIMITS = {"low": -1, "high": 2.5e3, "text": "ä", "raw": b"\\x00", "none": None, "yes": True}


class Thing(list[int], metaclass=type):
    """A class."""

    def method(self, a, /, b: int = 1, *args, c, **kwargs) -> str:
        """A method."""
        with open(a) as file, open(b):
            x = [i for i in range(3) if i % 2]
        return f"{x!r:>{b}} {file}" if (y := b) else lambda: y


async def later():
    try:
        async for _ in later():
            yield await _
    except* (OSError, ValueError) as error:
        raise error from None


def choose(value):
    match value:
        case {"a": [first, *rest], **others} if rest:
            return first
        case Thing(x=1) | None:
            pass
    return value[..., 1:2]
'''

# Raise KEY_VERSION when this changes on purpose: every artifact's key depends on it. The same on every Python.
GOLDEN = "6087ce3d5c050f49bdda7ac05aa8d932c3d039249158cf983476dfbf20269cb0"


def of(source: str) -> str:
    return digests._tree_digest(ast.parse(textwrap.dedent(source)))


def test_the_digest_of_code_is_the_same_on_every_python() -> None:
    assert of(SNIPPET) == GOLDEN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Another text."""'),
        ('"""A module."""', "# a comment"),
        ('    """A class."""\n', ""),
        ('        """A method."""', '        """Of another length,\n        with two lines."""'),
        ("import os as system", "import os as system  # why"),
        ("LIMITS = {", "\n\nLIMITS = {\n    "),
        ('"low": -1', "'low': -1"),
        ("2.5e3", "2500.0"),
        ("[i for i in range(3) if i % 2]", "(\n[i for i in range(3) if (i % 2)])"),
    ],
)
def test_comments_docstrings_layout_and_spelling_do_not_count(old: str, new: str) -> None:
    assert old in SNIPPET
    assert of(SNIPPET.replace(old, new)) == GOLDEN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-1", "1"),
        ("2.5e3", "2.5e4"),
        ('"ä"', '"ö"'),
        ('b"\\x00"', 'b"\\x01"'),
        ('b"\\x00"', '"\\x00"'),
        ('b"\\x00"', repr(repr(b"\x00"))),
        ("2.5e3", '"2500.0"'),
        ("None, ", "False, "),
        ("True}", "1}"),
        ("os as system", "sys as system"),
        ("a, /, b", "a, b"),
        ("i % 2", "i % 3"),
        ("{x!r:>", "{x!s:>"),
        ("except*", "except"),
        ("return first", "return rest"),
        ("1:2", "1:2:1"),
        ("async for _", "for _"),
    ],
)
def test_anything_that_is_code_counts(old: str, new: str) -> None:
    assert old in SNIPPET
    try:
        changed = of(SNIPPET.replace(old, new))
    except SyntaxError:
        pytest.fail(f"{new!r} is not Python here")
    assert changed != GOLDEN


def test_the_licence_of_a_family_changes_nothing_that_is_built() -> None:
    family = 'FAMILY = ModelFamily(name="a", licence=Licence("{}", "url"))'
    assert of(family.format("MIT")) == of(family.format("Apache-2.0")) == of('FAMILY = ModelFamily(name="a")')


def test_a_string_that_is_no_docstring_counts() -> None:
    assert of("def f():\n    x = 1\n    'a'") != of("def f():\n    x = 1\n    'b'")
    assert of("def f():\n    'a'") == of("def f():\n    'b'") == of("def f():\n    pass")


# ------------------------------------------------------------------ documents


def test_a_document_has_one_digest_whatever_the_order_of_its_keys() -> None:
    assert digest({"b": 1, "a": [1, {"d": None, "c": "ä"}]}) == digest({"a": [1, {"c": "ä", "d": None}], "b": 1})
    assert canonical({"b": 1, "a": (1.5, True)}) == b'{"a":[1.5,true],"b":1}'
    assert digest({}) == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        digest({"x": value})


# ------------------------------------------------------------------ files


def settle() -> None:
    """Let a file grow old enough for its digest to be remembered."""
    time.sleep(digests._RACY_NS / 1e9 + 0.02)


def test_an_unchanged_file_is_read_once_also_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    settle()
    read: list[Path] = []
    monkeypatch.setattr(digests, "file_digest", lambda p: (read.append(p), file_digest(Path(p)))[1])
    cache = DigestCache(tmp_path / "cache")
    assert {cache.file(path) for _ in range(3)} == {hashlib.sha256(b"content").hexdigest()}
    cache.save()
    assert DigestCache(tmp_path / "cache").file(path) == hashlib.sha256(b"content").hexdigest()
    assert len(read) == 1
    path.rename(tmp_path / "moved")
    settle()
    DigestCache(tmp_path / "cache").file(tmp_path / "moved")
    assert len(read) == 2, "a rename changes ctime; reading once more is right, trusting it would be a guess"


def test_a_young_file_is_read_each_time_since_it_may_change_within_one_tick(tmp_path: Path) -> None:
    path, cache = tmp_path / "file", DigestCache(tmp_path / "cache")
    path.write_bytes(b"1")
    cache.file(path)
    cache.save()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_an_edit_that_keeps_size_and_mtime_is_seen(tmp_path: Path, how: str) -> None:
    path, cache = tmp_path / "file", DigestCache(tmp_path / "cache")
    path.write_bytes(b"1")
    settle()
    before, stat = cache.file(path), path.stat()
    other = path if how == "in place" else tmp_path / "other"
    other.write_bytes(b"2")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    settle()
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert cache.file(path) != before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"file:1:2": 3}', b'{"version": 2}', b'{"version": 2, "files": []}'],
)
def test_a_cache_that_cannot_be_read_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache").write_bytes(content)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert DigestCache(tmp_path / "cache").file(path) == hashlib.sha256(b"content").hexdigest()


def test_two_processes_that_save_keep_what_both_learnt(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(path.name.encode())
    settle()
    caches = [DigestCache(tmp_path / "cache") for _ in paths]
    for cache, path in zip(caches, paths, strict=True):
        cache.file(path)
        cache.save()
    entries = DigestCache(tmp_path / "cache")._known
    assert len(entries) == 2
    assert str(tmp_path).encode() not in (tmp_path / "cache").read_bytes()


def test_what_an_earlier_version_remembered_is_not_believed(tmp_path: Path) -> None:
    """It remembered files too early."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    stat = path.stat()
    entry = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, "0" * 64]
    (tmp_path / "cache").write_bytes(canonical({f"file:{stat.st_dev}:{stat.st_ino}": entry}))
    assert DigestCache(tmp_path / "cache").file(path) == hashlib.sha256(b"content").hexdigest()


# ------------------------------------------------------------------ file systems with coarse times


class CoarseDisk:
    """Files whose times are what the clock `now` (ns) says when they are saved, cut to a multiple of `step` ns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int, *, has_ctime: bool = True) -> None:
        self.now = self._made = 1_700_000_000 * SECOND
        self._step, self._has_ctime = step, has_ctime
        self._saved: dict[str, int] = {}
        self._stat = os.stat
        monkeypatch.setattr(os, "stat", self.stat)
        monkeypatch.setattr(time, "time_ns", lambda: self.now)

    def save(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self._saved[str(path)] = self.now // self._step * self._step

    def stat(self, path: object, *args: object, **kwargs: object) -> os.stat_result:
        real = self._stat(path, *args, **kwargs)  # type: ignore[arg-type]
        if (saved := self._saved.get(str(path))) is None:
            return real
        changed = saved if self._has_ctime else self._made
        return os.stat_result(tuple(real)[:10], {"st_mtime_ns": saved, "st_ctime_ns": changed})


SECOND = 1_000_000_000
ASK = {
    "file": lambda cache, path: cache.file(path),
    "source": lambda cache, path: cache.source(path),
    "module": lambda cache, path: cache.module(path.stem),
}


@pytest.fixture(params=ASK)
def ask(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One of the questions that a cache answers from what it remembers; files above 1 byte are large."""
    monkeypatch.setattr(digests, "PACKAGE", tmp_path)
    monkeypatch.setattr(digests, "_LARGE", 1)
    return ASK[request.param]


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("has_ctime", [True, False])
def test_a_file_saved_twice_within_one_step_of_its_times_is_read_again(
    ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, has_ctime: bool
) -> None:
    disk, path = CoarseDisk(monkeypatch, step * SECOND, has_ctime=has_ctime), tmp_path / "file.py"
    disk.now += 6 * SECOND
    disk.save(path, b"x = 1")
    disk.now += step * SECOND - 20_000_000
    cache = DigestCache(tmp_path / "cache")
    first, before = ask(cache, path), path.stat()
    cache.save()
    disk.now += 10_000_000
    disk.save(path, b"x = 2")
    assert path.stat() == before
    again = DigestCache(tmp_path / "cache")
    disk.now += 60 * SECOND
    assert first != ask(cache, path) == ask(again, path) == ask(DigestCache(tmp_path / "none"), path)


@pytest.mark.parametrize("step", [1, 2])
def test_a_file_saved_once_more_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Reading a checkpoint takes longer than any margin."""
    disk, path = CoarseDisk(monkeypatch, step * SECOND), tmp_path / "file"
    disk.save(path, b"1")
    cache = DigestCache(tmp_path / "cache")
    real = file_digest

    def slowly(path: Path) -> str:
        found = real(path)
        disk.now += SECOND // 2
        disk.save(path, b"2")
        disk.now += 60 * SECOND
        return found

    monkeypatch.setattr(digests, "file_digest", slowly)
    first = cache.file(path)
    monkeypatch.setattr(digests, "file_digest", real)
    assert first != cache.file(path) == hashlib.sha256(b"2").hexdigest()


@pytest.mark.parametrize(("age", "reads"), [(1.9, 2), (2.05, 2), (2.2, 1)])
def test_where_times_are_whole_seconds_a_file_is_remembered_when_it_is_older_than_the_coarsest_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, reads: int
) -> None:
    disk, path = CoarseDisk(monkeypatch, SECOND), tmp_path / "file"
    disk.save(path, b"1")
    disk.now += int(age * SECOND)
    read: list[Path] = []
    monkeypatch.setattr(digests, "file_digest", lambda p: (read.append(p), file_digest(Path(p)))[1])
    cache = DigestCache(tmp_path / "cache")
    assert cache.file(path) == cache.file(path) == hashlib.sha256(b"1").hexdigest()
    assert len(read) == reads


@pytest.mark.parametrize("step", [1, SECOND])
def test_a_file_whose_times_lie_ahead_of_the_clock_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    disk, path = CoarseDisk(monkeypatch, step), tmp_path / "file"
    disk.now += 5 * SECOND + 1  # the server's clock
    disk.save(path, b"1")
    disk.now -= 5 * SECOND
    cache = DigestCache(tmp_path / "cache")
    cache.file(path)
    cache.save()
    assert not (tmp_path / "cache").exists()


# ------------------------------------------------------------------ recipes


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in place of sam3_build: a stage imports a family, which imports its neighbour and the core."""
    root = tmp_path / "sam3_build"
    files = {
        "stages/export.py": "def run():\n    from sam3_build.families.toy import modules\n    import sam3_build.spec\n",
        "families/toy/__init__.py": "",
        "families/toy/modules.py": "from sam3_build.families.toy.norms import norm\nfrom sam3_build.errors import X\n",
        "families/toy/norms.py": "def norm(x):\n    return x\n",
        "families/toy/unused.py": "",
        "errors.py": "X = 1\n",
        "spec.py": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(digests, "PACKAGE", root)
    return root


def test_a_recipe_is_all_that_its_modules_import_from_the_package_but_the_core(package: Path, tmp_path: Path) -> None:
    recipe = DigestCache(tmp_path / "cache").recipe(("stages.export",))
    assert recipe.keys() == {"stages.export", "families.toy.modules", "families.toy.norms"}
    (package / "families/toy/norms.py").write_text("def norm(x):\n    return 2 * x\n")
    changed = DigestCache(tmp_path / "cache").recipe(("stages.export",))
    assert {name for name in recipe if recipe[name] != changed[name]} == {"families.toy.norms"}


def test_what_is_not_python_is_named_with_its_line(package: Path, tmp_path: Path) -> None:
    (package / "families/toy/norms.py").write_text("x = 1\ndef (:\n")
    with pytest.raises(BuildError, match=r"families/toy/norms\.py:2: this is not Python"):
        DigestCache(tmp_path / "cache").recipe(("stages.export",))


# ------------------------------------------------------------------ large source files


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files above 64 bytes are large, and read in blocks of 16."""
    monkeypatch.setattr(digests, "_LARGE", 64)
    monkeypatch.setattr(digests, "_PART", 16)


@pytest.mark.usefixtures("small_blocks")
def test_the_digest_of_a_large_source_file_covers_every_byte_their_order_and_their_number(tmp_path: Path) -> None:
    data = bytes(range(100))
    variants = {data, data[:-1], data + b"\0", data[16:32] + data[:16] + data[32:]}
    variants |= {data[:at] + b"x" + data[at + 1 :] for at in (0, 15, 16, 63, 99)}
    found = set()
    for n, content in enumerate(variants):
        path = tmp_path / str(n)
        path.write_bytes(content)
        found.add(DigestCache(tmp_path / "none").source(path))
    assert len(variants) == len(found) == 9


@pytest.mark.usefixtures("small_blocks")
def test_a_large_source_file_is_read_once_and_told_apart_from_its_plain_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(100))
    time.sleep(0.15)
    cache = DigestCache(tmp_path / "cache")
    found, plain = cache.source(path), cache.file(path)
    assert found != plain == hashlib.sha256(bytes(100)).hexdigest()
    cache.save()
    monkeypatch.setattr(digests, "tree_digest", None)
    again = DigestCache(tmp_path / "cache")
    assert (again.source(path), again.file(path)) == (found, plain)


def test_a_small_source_file_has_its_plain_digest(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    assert DigestCache(tmp_path / "none").source(tmp_path / "small") == hashlib.sha256(b"abc").hexdigest()


def test_an_edit_of_what_only_runs_engines_measures_them_again_and_builds_none(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "cache")
    for backend in ("backends.tensorrt", "backends.tensorrt_rtx", "backends.openvino"):
        assert RUN_ONLY & cache.recipe(("stages.build", backend)).keys() == set()
    for stage in ("stages.verify", "stages.chain", "stages.localize"):
        assert RUN_ONLY - cache.recipe((stage, "backends.tensorrt", "backends.openvino")).keys() == set()
