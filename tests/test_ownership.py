"""Whose a folder of `artifacts/` is: two manifests of one file name never write into the same one."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from build_space import BuildSpace

from sam3_build.errors import ManifestError
from sam3_build.manifest.paths import doit_call, identity
from sam3_build.store.ownership import OWNER, Ownership, release
from sam3_build.store.view import KEPT

EXTENDS = "extends: ../manifests/toy.yaml\n"


def of(manifest: Path | str, checkout: Path) -> Ownership:
    """Return the claim of a manifest, which is made when it does not exist, on `artifacts/m`."""
    path = checkout / manifest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return Ownership(checkout / "artifacts" / "m", identity(path, checkout), checkout)


def refused(ownership: Ownership) -> str:
    for attempt in (ownership.check, ownership.claim):
        with pytest.raises(ManifestError) as caught:
            attempt()
    return str(caught.value)


def owner(checkout: Path) -> str:
    return (checkout / "artifacts" / "m" / OWNER).read_text()


def test_who_comes_second_is_refused_and_both_are_named(tmp_path: Path) -> None:
    one, other = of("a/m.yaml", tmp_path), of("b/m.yaml", tmp_path)
    one.claim()
    one.claim()
    assert refused(other) == (
        "b/m.yaml: artifacts/m belongs to a/m.yaml, another manifest of this file name; rename one of the two, or move "
        "artifacts/m away"
    )
    one.check()
    assert owner(tmp_path) == "a/m.yaml\n"


@pytest.mark.parametrize(
    ("identity", "call"),
    [
        ("manifests/mine.yaml", "doit manifest=mine"),
        ("manifests/mine.yml", "doit manifest=manifests/mine.yml"),
        ("manifests/mine.v2.yaml", "doit manifest=mine.v2"),
        ("manifests/old/mine.yaml", "doit manifest=manifests/old/mine.yaml"),
        ("manifests/manifests/mine.yaml", "doit manifest=manifests/manifests/mine.yaml"),
        ("old/manifests/mine.yaml", "doit manifest=old/manifests/mine.yaml"),
        ("mine.yaml", "doit manifest=mine.yaml"),
        ("my own/mine.yaml", "doit 'manifest=my own/mine.yaml'"),
        ("/data/mine.yaml", "doit manifest=path/to/mine.yaml"),
    ],
)
def test_doit_is_called_by_what_finds_a_manifest_on_any_machine(identity: str, call: str) -> None:
    assert doit_call(identity) == call


def test_looking_claims_nothing(tmp_path: Path) -> None:
    one, other = of("a/m.yaml", tmp_path), of("manifests/m.yaml", tmp_path)
    one.check()
    assert not (tmp_path / "artifacts").exists()
    other.claim()
    assert refused(one).startswith("a/m.yaml: artifacts/m belongs to manifests/m.yaml, ")


def test_of_two_that_come_at_once_one_is_refused(tmp_path: Path) -> None:
    both = [of(f"{folder}/m.yaml", tmp_path) for folder in ("a", "b")]
    start, refusals = threading.Barrier(2), []

    def claim(ownership: Ownership) -> None:
        start.wait()
        try:
            ownership.claim()
        except ManifestError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=claim, args=[ownership]) for ownership in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refusals) == 1
    assert f"belongs to {owner(tmp_path).strip()}, " in refusals[0]


def test_a_moved_checkout_stays_what_it_was(tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "m.yaml"
    for manifest in ("a/m.yaml", str(outside)):
        here = tmp_path / "here"
        of(manifest, here).claim()
        moved = here.rename(tmp_path / "moved")
        of(manifest, moved).check()
        assert refused(of("b/m.yaml", moved))
        release(moved / "artifacts" / "m")
        moved.rename(here)
    assert identity(outside, tmp_path / "here") == str(outside)


def test_what_was_built_before_folders_had_owners_is_adopted(tmp_path: Path) -> None:
    published = tmp_path / "artifacts" / "m" / "published" / "cpu"
    published.mkdir(parents=True)
    of("a/m.yaml", tmp_path).claim()
    assert published.is_dir()
    assert owner(tmp_path) == "a/m.yaml\n"


def test_a_folder_that_may_only_be_read_and_has_no_owner_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifacts" / "m").mkdir(parents=True)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    of("a/m.yaml", tmp_path).claim()
    assert list((tmp_path / "artifacts").rglob("*")) == [tmp_path / "artifacts" / "m"]


def test_what_a_manifest_that_is_gone_left_is_taken_over_where_the_store_can_restore_it(tmp_path: Path) -> None:
    of("a/m.yaml", tmp_path).claim()
    (tmp_path / "a" / "m.yaml").unlink()
    (tmp_path / "artifacts" / "m" / "decoder").mkdir()
    (tmp_path / "artifacts" / "m" / "published").mkdir()
    of("b/m.yaml", tmp_path).claim()
    assert owner(tmp_path) == "b/m.yaml\n"
    assert refused(of("a/m.yaml", tmp_path))


@pytest.mark.parametrize("folder", KEPT)
def test_what_was_published_told_or_measured_for_a_manifest_that_is_gone_is_no_other_ones(
    tmp_path: Path, folder: str
) -> None:
    of("a/m.yaml", tmp_path).claim()
    (tmp_path / "a" / "m.yaml").rename(tmp_path / "a" / "n.yaml")
    (tmp_path / "artifacts" / "m" / folder / "ada").mkdir(parents=True)
    other = of("b/m.yaml", tmp_path)
    assert refused(other) == (
        f"b/m.yaml: artifacts/m belongs to a/m.yaml, which is gone, and keeps what was made for it ({folder}); "
        "if this is that manifest under a new path, delete artifacts/m/.manifest; "
        "else rename this one, or move artifacts/m away"
    )
    (tmp_path / "artifacts" / "m" / OWNER).unlink()
    other.claim()
    assert (tmp_path / "artifacts" / "m" / folder / "ada").is_dir()


def test_a_folder_that_is_a_link_is_followed_and_a_manifest_that_is_one_is_not(tmp_path: Path) -> None:
    manifest = tmp_path / "manifests" / "m.yaml"
    manifest.parent.mkdir()
    manifest.touch()
    (tmp_path / "alias").symlink_to("manifests")
    (tmp_path / "m.yaml").symlink_to(manifest)
    (tmp_path / "checkout").symlink_to(tmp_path)
    for path in ("manifests/m.yaml", "alias/m.yaml", "checkout/alias/../manifests/m.yaml"):
        assert identity(tmp_path / path, tmp_path / "checkout") == "manifests/m.yaml"
    assert identity(tmp_path / "m.yaml", tmp_path) == "m.yaml", "whose relative paths lead elsewhere"


def test_a_folder_is_given_free_when_only_its_owner_is_left(tmp_path: Path) -> None:
    one, folder = of("a/m.yaml", tmp_path), tmp_path / "artifacts" / "m"
    one.claim()
    (folder / "report.json").touch()
    release(folder)
    assert owner(tmp_path) == "a/m.yaml\n"
    (folder / "report.json").unlink()
    release(folder)
    assert not folder.exists()
    of("b/m.yaml", tmp_path).claim()


# ------------------------------------------------------------------ in doit


@pytest.fixture
def rival(space: BuildSpace) -> BuildSpace:
    """The built project, and another manifest called toy.yaml."""
    (space.root / "mine").mkdir()
    (space.root / "mine/toy.yaml").write_text(f"{EXTENDS}opset: 19\n")
    return space


@pytest.mark.parametrize(
    "words", [["publish"], ["nightly"], ["build"], ["clean"], ["list"]], ids=lambda words: words[0]
)
def test_doit_leaves_what_another_manifest_of_that_name_built_and_published(
    rival: BuildSpace, words: list[str]
) -> None:
    (rival.view / "published/cpu").mkdir(parents=True)
    (rival.view / "published/cpu/head.fp16.onnx").write_text("which somebody uses")
    before = rival.shown()
    run = rival.doit("manifest=mine/toy.yaml", *words)
    assert run.code != 0 and "Traceback" not in run.output, run.output
    assert (
        "mine/toy.yaml: artifacts/toy belongs to manifests/toy.yaml, another manifest of this file name" in run.output
    )
    assert rival.shown() == before


def test_what_only_looks_is_refused_too_and_a_renamed_manifest_is_not(rival: BuildSpace) -> None:
    run = rival.cli("plan", "--manifest", "mine/toy.yaml")
    assert run.code == 1 and "artifacts/toy belongs to manifests/toy.yaml" in run.output, run.output
    (rival.root / "mine/toy.yaml").rename(rival.root / "mine/toy19.yaml")
    assert rival.cli("plan", "--manifest", "mine/toy19.yaml").code == 0
    assert not (rival.artifacts / "toy19").exists()


def test_gc_never_collects_the_view_of_an_owner_outside_of_manifests(rival: BuildSpace) -> None:
    rival.build("clean")
    assert not rival.view.exists()
    rival.build("manifest=mine/toy.yaml", "export:head")
    leftover = rival.view / "tail" / "tail.fp16.onnx"
    leftover.parent.mkdir()
    leftover.write_text("of a component that manifests/toy.yaml does not have")
    (rival.root / "manifests/other.yaml").write_text("extends: toy.yaml\n")
    run = rival.cli("gc", "--keep", "1")
    assert run.code == 0 and "only the last builds of toy.yaml are kept" in run.output, run.output
    assert leftover.exists() and owner_of(rival) == "mine/toy.yaml\n"
    assert rival.build("manifest=mine/toy.yaml", "export:head").built == set()


def owner_of(space: BuildSpace) -> str:
    return (space.view / OWNER).read_text()
