"""A published folder is swapped as a whole: killed at any instant, readers see the old one or the new one."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from sam3_build.digest import DigestCache
from sam3_build.errors import StoreError
from sam3_build.publish.folder import SUMS, digests_of, listed, recover, replace, unexpected_files, withdraw


@pytest.fixture
def digests(tmp_path: Path) -> DigestCache:
    return DigestCache(tmp_path / ".digests.json")


def put(folder: Path, digests: DigestCache, **texts: str) -> None:
    files: dict[str, Path | bytes] = {name: text.encode() for name, text in texts.items()}
    replace(folder, files, {n: hashlib.sha256(t.encode()).hexdigest() for n, t in texts.items()}, digests)


def texts_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != SUMS}


def test_a_folder_holds_exactly_what_was_put_there_and_checks_itself(tmp_path: Path, digests: DigestCache) -> None:
    folder = tmp_path / "published" / "ada"
    put(folder, digests, a="1", b="2")
    put(folder, digests, b="3", c="4")
    assert texts_in(folder) == {"b": "3", "c": "4"}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["ada"], "nothing is left beside it"
    subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=folder, check=True, capture_output=True)
    assert unexpected_files(folder, digests) == {}
    assert all(not path.stat().st_mode & 0o222 for path in folder.iterdir())


def test_what_changed_is_added_or_gone_is_unexpected(tmp_path: Path, digests: DigestCache) -> None:
    folder = tmp_path / "ada"
    assert unexpected_files(folder, digests) == {}
    put(folder, digests, a="1", b="2", c="3")
    (folder / "a").chmod(0o644)
    (folder / "a").write_text("9")
    (folder / "b").unlink()
    (folder / "d").mkdir()
    assert unexpected_files(folder, digests).keys() == {"a", "b", "d"}


def test_what_lies_in_a_folder_is_told_without_its_list(tmp_path: Path, digests: DigestCache) -> None:
    folder = tmp_path / "ada"
    assert digests_of(folder, digests) == {}
    put(folder, digests, a="1", b="2")
    (folder / "c").mkdir()
    digests_by_name = listed(folder)
    assert digests_by_name and digests_of(folder, digests) == digests_by_name
    (folder / SUMS).unlink()
    assert digests_of(folder, digests) == digests_by_name


def test_other_bytes_than_those_wanted_are_refused_and_the_folder_stays(tmp_path: Path, digests: DigestCache) -> None:
    folder = tmp_path / "ada"
    put(folder, digests, a="1")
    with pytest.raises(StoreError, match=r"a has the sha256 .* and should have 000"):
        replace(folder, {"a": b"2"}, {"a": "0" * 64}, digests)
    assert texts_in(folder) == {"a": "1"}


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_run_killed_at_any_rename_leaves_a_whole_folder_after_the_next_look(
    tmp_path: Path, digests: DigestCache, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr("sam3_build.publish.folder._exchange", lambda one, other: False)
    seen: list[dict[str, str]] = []
    for killed_at in range(4):
        folder = tmp_path / f"{killed_at}" / "ada"
        put(folder, digests, a="old")
        calls = iter(range(10))
        rename = Path.rename

        def dying(self: Path, target: Path, calls=calls, killed_at=killed_at, rename=rename) -> None:
            if next(calls) == killed_at:
                raise KeyboardInterrupt
            rename(self, target)

        with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
            patched.setattr(Path, "rename", dying)
            put(folder, digests, a="new")
        recover(folder)
        seen.append(texts_in(folder))
        put(folder, digests, a="newer")
        assert texts_in(folder) == {"a": "newer"} and len(list(folder.parent.iterdir())) == 1
    assert {"a": "new"} in seen
    assert exchanges or {"a": "old"} in seen
    assert all(found in ({"a": "old"}, {"a": "new"}) for found in seen)


def test_a_folder_is_withdrawn_at_once_and_does_not_come_back(tmp_path: Path, digests: DigestCache) -> None:
    folder = tmp_path / "published" / "ada"
    put(folder, digests, a="1")
    withdraw(folder)
    recover(folder)
    assert list(folder.parent.iterdir()) == []
    withdraw(folder)
