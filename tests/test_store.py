"""The store alone: what is committed is found again, what is damaged is not, and what cannot be written says why."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from sam3_build.digest import DigestCache
from sam3_build.documents import Params
from sam3_build.errors import BuildError, StoreError
from sam3_build.spec import Action, Input, Plan
from sam3_build.store.objects import Record, Store
from sam3_build.store.resolve import Resolver, State
from sam3_build.store.view import View

KEY = "a" * 64


def open_store(folder: Path) -> Store:
    return Store(folder / "store", DigestCache(folder / "digests.json"), "here")


def commit(store: Store, files: dict[str, bytes], key: str = KEY) -> Record:
    out = store.workdir(key) / "out"
    out.mkdir()
    for name, data in files.items():
        (out / name).write_bytes(data)
    return store.commit(key=key, action="build:x", document={"opset": 20}, out=out, facts={"n": 1}, provenance={})


def commit_folders(store: Store, files: dict[str, bytes], key: str = KEY) -> Record:
    out = store.workdir(key)
    for name, data in files.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(data)
    return store.commit(key=key, action="reference:loop", document={}, out=out, facts={}, provenance={})


def test_what_is_committed_is_found_again_by_another_process(tmp_path: Path) -> None:
    record = commit(open_store(tmp_path), {"x.onnx": b"graph", "x.onnx.data": b"weights"})
    found = open_store(tmp_path).record(KEY)
    assert found == record and open_store(tmp_path).intact(record)
    assert found.document == {"opset": 20} and found.facts == {"n": 1} and found.size == 12
    folder = open_store(tmp_path).object_path(record.object)
    assert sorted((p.name, p.read_bytes()) for p in folder.iterdir()) == [
        ("x.onnx", b"graph"),
        ("x.onnx.data", b"weights"),
    ]


def test_an_unknown_key_has_no_record_and_reading_creates_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store.record(KEY) is None and store.history("toy", "build:x") == ()
    assert list(tmp_path.iterdir()) == []


def test_equal_content_under_two_keys_is_one_object(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    one, other = commit(store, {"x": b"1"}), commit(store, {"x": b"1"}, key="b" * 64)
    assert one.object == other.object and len(list(store.root.glob("objects/*/*"))) == 1


def test_the_name_of_a_file_is_part_of_its_object(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert commit(store, {"x": b"1"}).object != commit(store, {"y": b"1"}, key="b" * 64).object


@pytest.mark.parametrize("damage", ["change", "remove", "truncate"])
def test_a_damaged_object_is_a_miss_and_building_it_again_repairs_it(tmp_path: Path, damage: str) -> None:
    store = open_store(tmp_path)
    record = commit(store, {"x": b"12", "y": b"34"})
    path = store.object_path(record.object) / "x"
    path.chmod(0o644)
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(b"13" if damage == "change" else b"1")
    assert not open_store(tmp_path).intact(record)
    again = commit(open_store(tmp_path), {"x": b"12", "y": b"34"})
    assert again.object == record.object and open_store(tmp_path).intact(record)


def test_committed_files_are_read_only(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    folder = store.object_path(commit(store, {"x": b"1"}).object)
    assert [oct(p.stat().st_mode & 0o777) for p in folder.iterdir()] == ["0o444"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"key": "x"}', b'{"files": {"x": 1}}', b"\xff"])
def test_what_is_no_record_is_a_miss(tmp_path: Path, content: bytes) -> None:
    store = open_store(tmp_path)
    commit(store, {"x": b"1"})
    (path,) = store.root.glob("records/*/*.json")
    path.write_bytes(content)
    assert store.record(KEY) is None


def test_an_empty_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="build:x: produced no file"):
        commit(open_store(tmp_path), {})


@pytest.mark.parametrize(("made", "kind"), [("x/y", "folder"), ("x", "link"), ("x/y", "link")])
def test_only_plain_files_in_one_level_of_subfolders_are_taken(tmp_path: Path, made: str, kind: str) -> None:
    store = open_store(tmp_path)
    out = store.workdir(KEY)
    path = out / made
    path.parent.mkdir(exist_ok=True)
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match=f"{made}: an action's output is plain files, in one level of subfolders"):
        store.commit(key=KEY, action="build:x", document={}, out=out, facts={}, provenance={})
    assert store.record(KEY) is None


def test_files_in_subfolders_are_sealed_found_again_and_checked(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    record = commit_folders(store, {"state/0.npz": b"1", "decode/0.npz": b"2", "cases.json": b"[]"})
    assert sorted(record.files) == ["cases.json", "decode/0.npz", "state/0.npz"]
    folder = store.object_path(record.object)
    assert (folder / "state" / "0.npz").read_bytes() == b"1" and open_store(tmp_path).intact(record)
    assert stat.S_IMODE((folder / "state" / "0.npz").stat().st_mode) == 0o444
    (folder / "state" / "0.npz").unlink()
    assert not open_store(tmp_path).intact(record)


def test_an_input_reads_one_file_or_one_subfolder_and_nothing_beside_it(tmp_path: Path) -> None:
    store, usual = open_store(tmp_path), {"state/0.npz": b"1", "decode/0.npz": b"2", "cases.json": b"[]"}
    before = commit_folders(store, usual)
    after = commit_folders(store, {**usual, "state/0.npz": b"another"}, key="b" * 64)
    sources = {
        "state": Input("a", folder="state"),
        "decode": Input("a", folder="decode"),
        "cases": Input("a", "cases.json"),
        "all": Input("a"),
    }
    assert [name for name, source in sources.items() if before.content(source) != after.content(source)] == [
        "state",
        "all",
    ]
    assert None not in {before.content(source) for source in sources.values()}
    assert before.content(Input("a", "gone.json")) is None and before.content(Input("a", folder="gone")) is None


def test_a_work_folder_is_empty_whatever_a_killed_run_left(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    (store.workdir(KEY) / "half").write_bytes(b"written")
    assert list(store.workdir(KEY).iterdir()) == []


def test_the_history_is_newest_first_without_repetition_and_short(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for key in [*"abcdefghij", "c"]:
        store.remember("toy", "build:x", key)
    assert store.history("toy", "build:x") == ("c", "j", "i", "h", "g", "f", "e", "d")
    assert Store(store.root, store.digests, "elsewhere").history("toy", "build:x") == ()


def test_a_lock_keeps_others_out_until_it_is_given_back_and_says_once_that_they_wait(tmp_path: Path) -> None:
    store, said, order = open_store(tmp_path), [], []

    def second() -> None:
        with open_store(tmp_path).lock(KEY, lambda: said.append("waiting")):
            order.append("second")

    with store.lock(KEY):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert (order, said) == (["first", "second"], ["waiting"])


def test_collection_waits_for_those_who_use_the_store_and_they_do_not_wait_for_each_other(tmp_path: Path) -> None:
    store, collected, waited = open_store(tmp_path), threading.Event(), threading.Event()

    def collect() -> None:
        with open_store(tmp_path).exclusive(waited.set):
            collected.set()

    thread = threading.Thread(target=collect)
    with store.using(), open_store(tmp_path).using():
        thread.start()
        assert waited.wait(10) and not collected.wait(0.2)
    assert collected.wait(10)
    thread.join(10)


def test_a_store_whose_place_is_taken_by_a_file_says_where(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    store = open_store(tmp_path)
    assert store.record(KEY) is None
    with pytest.raises(StoreError, match=r"store.*: Not a directory|store.*: File exists"):
        store.workdir(KEY)


# ------------------------------------------------------------------ the view


def test_the_view_is_a_copy_so_that_editing_it_cannot_damage_the_store(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    record = commit(store, {"x.onnx": b"graph", "x.onnx.data": b"weights", "notes": b"not shown"})
    view = View(tmp_path / "view", store)
    action = Action("precision:x", "precision", Params(), (), (), view={"x.onnx": "x/x.onnx"})
    assert not view.intact(action, record)
    view.publish(action, record)
    assert view.intact(action, record)
    shown = tmp_path / "view" / "x"
    assert sorted(p.name for p in shown.iterdir()) == ["x.onnx", "x.onnx.data", "x.onnx.json"]
    for path in (shown / "x.onnx", shown / "x.onnx.data"):
        kept = store.object_path(record.object) / path.name
        assert path.stat().st_ino != kept.stat().st_ino and not path.is_symlink() and path.stat().st_nlink == 1
        path.chmod(0o644)
        path.write_bytes(b"edited")
        assert not view.intact(action, record)
    assert store.intact(record)
    view.publish(action, record)
    assert view.intact(action, record)
    for path in view.paths(action):
        path.unlink()
    assert list(shown.iterdir()) == [] and store.intact(record)


def test_publishing_removes_what_a_killed_run_left_half_way(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    record = commit(store, {"x.onnx": b"graph"})
    view = View(tmp_path / "view", store)
    action = Action("precision:x", "precision", Params(), (), (), view={"x.onnx": "x/x.onnx"})
    folder = tmp_path / "view" / "x"
    folder.mkdir(parents=True)
    (folder / ".x.onnx.4711").write_bytes(b"gra")
    (folder / ".x.onnx.json.4711.7f").write_bytes(b"{")
    view.publish(action, record)
    assert sorted(path.name for path in folder.iterdir()) == ["x.onnx", "x.onnx.json"]


# ------------------------------------------------------------------ inputs that are a part of an output


def test_a_change_in_one_subfolder_leaves_the_users_of_another_fresh(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    users = [
        Action(name, "verify", Params(), (), (), inputs={"reference": Input("loop", folder=name)})
        for name in ("state", "decode")
    ]
    plan = Plan("m", (Action("loop", "reference", Params(), (), ("torch",)), *users), ())

    def resolver(torch: str) -> Resolver:
        return Resolver(plan, store, lambda _: torch)

    def build(name: str, files: dict[str, bytes], torch: str = "1") -> None:
        answer = resolver(torch).resolve(name)
        assert answer.key and answer.document
        out = store.workdir(answer.key)
        for file, data in files.items():
            (out / file).parent.mkdir(exist_ok=True)
            (out / file).write_bytes(data)
        store.commit(key=answer.key, action=name, document=answer.document, out=out, facts={}, provenance={})

    build("loop", {"state/0.npz": b"1", "decode/0.npz": b"2"})
    for user in users:
        build(user.name, {"statistics.json": user.name.encode()})
    given = resolver("1").input_paths(users[0])["reference"]
    assert given.name == "state" and (given / "0.npz").read_bytes() == b"1"
    build("loop", {"state/0.npz": b"another", "decode/0.npz": b"2"}, torch="2")
    assert {name: resolver("2").resolve(name).state for name in ("loop", "state", "decode")} == {
        "loop": State.FRESH,
        "state": State.STALE,
        "decode": State.FRESH,
    }


def test_an_input_that_an_output_does_not_have_is_an_error_that_names_what_it_has(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    loop = Action("loop", "reference", Params(), (), ())
    user = Action("verify:x", "verify", Params(), (), (), inputs={"reference": Input("loop", folder="decoder")})
    resolver = Resolver(Plan("m", (loop, user), ()), store, lambda _: "1")
    answer = resolver.resolve("loop")
    assert answer.key and answer.document
    out = store.workdir(answer.key)
    (out / "decode").mkdir()
    (out / "decode" / "0.npz").write_bytes(b"1")
    store.commit(key=answer.key, action="loop", document=answer.document, out=out, facts={}, provenance={})
    with pytest.raises(BuildError, match=r"verify:x: loop has no 'decoder', only decode/0\.npz"):
        resolver.resolve("verify:x")
