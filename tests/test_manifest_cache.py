"""The remembered manifest: used when nothing changed, never when anything that a check depends on did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from build_space import copy_manifests

from sam3_build.digest import PACKAGE, DigestCache
from sam3_build.errors import ManifestError
from sam3_build.manifest import cache
from sam3_build.manifest import load as checking
from sam3_build.manifest.types import Manifest
from sam3_build.plan.make import make_plan

ROOT = Path(__file__).parents[1]


M = """\
extends: base.yaml
opset: 19
checkpoint: {config: sam3_mini/config.json, licence: sam3_mini/LICENSE}
tokenizer: sam3_mini/tokenizer.json
"""


class Project:
    """A project with `m.yaml` over `base.yaml` (the default manifest), its own copy of the modules, and its cache."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.manifests = root / "manifests"
        self.package = root / "package"
        self.entries = root / "artifacts" / ".manifests"
        self.checks = 0
        copy_manifests(root)
        (self.manifests / "sam3_mini.yaml").rename(self.manifests / "base.yaml")
        (self.manifests / "m.yaml").write_text(M)
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(cache, "PACKAGE", self.package)
        monkeypatch.setattr(checking, "load", self._checked)
        monkeypatch.chdir(root)

    _real = staticmethod(checking.load)

    def _checked(self, name_or_path: str, root: Path) -> Manifest:
        self.checks += 1
        return self._real(name_or_path, root)

    def load(self, name: str = "m") -> Manifest:
        digests = DigestCache(self.root / "artifacts" / ".digests.json")
        return cache.load(name, self.root, digests, self.entries)

    def checked(self, name: str = "m") -> bool:
        """Load; tell whether the manifest had to be checked for that."""
        before = self.checks
        self.load(name)
        return self.checks > before


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = Project(tmp_path, monkeypatch)
    assert project.checked()
    assert not project.checked()
    return project


def test_what_is_remembered_is_what_was_checked_in_the_same_order(project: Project) -> None:
    checked, remembered = checking.load("m", project.root), project.load()
    assert remembered == checked
    assert list(remembered.targets) == list(checked.targets) == ["openvino", "cpu", "ampere", "ada", "blackwell"]
    assert make_plan(remembered) == make_plan(checked)


LOCK = f"decoder:\n  fp16: {{graph: '{'5' * 64}', keep_fp32: [a]}}\n"

CHANGES: dict[str, Callable[[Project], object]] = {
    "the manifest": lambda p: (p.manifests / "m.yaml").write_text("extends: base.yaml\nopset: 20\n"),
    "what it extends": lambda p: _append(p.manifests / "base.yaml", "# a word\n"),
    "a new lock": lambda p: (p.manifests / "m.lock.yaml").write_text(LOCK),
    "a plug-in": lambda p: _append(p.package / "backends" / "tensorrt_rtx.py", "\n"),
    "a new plug-in": lambda p: (p.package / "backends" / "new.py").write_text(""),
    "a removed plug-in": lambda p: (p.package / "patches" / "rope.py").unlink(),
    "a new folder of plug-ins": lambda p: _write(p.package / "families" / "new" / "family.py", ""),
    "the checking code": lambda p: _append(p.package / "manifest" / "checks.py", "\n"),
    "a damaged entry": lambda p: _append(_entry(p), " "),
    "an entry with another name in it": lambda p: _edit(_entry(p), '"sam3_image", ', '"sam3_imagf", '),
    "an empty entry": lambda p: _entry(p).write_text(""),
    "an entry that is gone": lambda p: _entry(p).unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_checked_once(project: Project, change: str) -> None:
    CHANGES[change](project)
    assert project.checked(), change
    assert not project.checked(), change


def test_a_lock_that_changes_or_goes_is_noticed_and_what_is_remembered_holds_it(project: Project) -> None:
    lock = project.manifests / "m.lock.yaml"
    for text in (LOCK, LOCK.replace("[a]", "[b]")):
        lock.write_text(text)
        assert [project.checked(), project.checked()] == [True, False]
        assert project.load() == checking.load("m", project.root)
    assert project.load().locks["decoder"]["fp16"].keep_fp32 == ("b",)
    lock.unlink()
    assert [project.checked(), project.checked()] == [True, False]
    assert project.load().locks == {}


def test_another_python_is_another_check(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version", "3.99")
    assert project.checked()


GONE: dict[str, tuple[str, str]] = {
    "a picture": ("samples/scene2.png", "no such file 'scene2.png'"),
    "the config": ("sam3_mini/config.json", "no such file 'config.json'"),
    "the licence": ("sam3_mini/LICENSE", "no such file 'LICENSE'"),
    "the tokenizer": ("sam3_mini/tokenizer.json", "no such file 'tokenizer.json'"),
    "what it extends": ("base.yaml", "no such file 'base.yaml'"),
    "the manifest": ("m.yaml", "unknown manifest 'm'"),
}


@pytest.mark.parametrize("what", GONE)
@pytest.mark.parametrize("replaced", [False, True], ids=["gone", "a folder now"])
def test_a_vanished_file_is_reported_and_its_return_needs_no_check(project: Project, what: str, replaced: bool) -> None:
    path = project.manifests / GONE[what][0]
    aside = path.rename(project.root / "aside")
    if replaced:
        path.mkdir()
    with pytest.raises(ManifestError, match="is a folder" if replaced and what != "the manifest" else GONE[what][1]):
        project.load()
    if replaced:
        path.rmdir()
    aside.rename(path)
    assert not project.checked()


def test_a_checkpoints_config_that_vanishes_is_noticed(project: Project) -> None:
    folder = project.manifests / "weights"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    (project.manifests / "w.yaml").write_text("extends: base.yaml\ncheckpoint: {path: weights}\n")
    assert project.checked("w")
    assert not project.checked("w")
    (folder / "config.json").unlink()
    with pytest.raises(ManifestError, match=r"has no config\.json beside it"):
        project.load("w")


def test_an_error_is_never_remembered(project: Project) -> None:
    (project.manifests / "m.yaml").write_text("extends: base.yaml\nopset: 5\n")
    for _ in range(2):
        with pytest.raises(ManifestError):
            project.load()
    assert project.checks == 3


def test_a_relative_path_means_another_manifest_in_another_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, opset in (("one", 18), ("other", 20)):
        (project.root / folder).mkdir()
        (project.root / folder / "n.yaml").write_text(f"extends: ../manifests/base.yaml\nopset: {opset}\n")
        monkeypatch.chdir(project.root / folder)
        assert project.load("./n.yaml").opset == opset
    assert not project.checked("./n.yaml")


def test_another_home_is_another_check(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.manifests / "n.yaml").write_text("extends: base.yaml\ncheckpoint: {config: ~/config.json}\n")
    for name in ("one", "other"):
        (project.root / name).mkdir()
        shutil.copy(project.manifests / "sam3_mini" / "config.json", project.root / name)
        monkeypatch.setenv("HOME", str(project.root / name))
        assert [project.checked("n"), project.checked("n")] == [True, False]
        assert project.load("n").checkpoint.config == project.root / name / "config.json"


def test_a_path_through_a_link_leads_where_the_system_says(project: Project) -> None:
    far = project.root / "far"
    (far / "deep").mkdir(parents=True)
    shutil.copy(project.manifests / "sam3_mini" / "config.json", far / "config.json")
    (project.manifests / "link").symlink_to(far / "deep")
    (project.manifests / "config.json").write_text("another one, which `link/../config.json` is not")
    (project.manifests / "n.yaml").write_text("extends: base.yaml\ncheckpoint: {config: link/../config.json}\n")
    for _ in range(2):
        assert project.load("n").checkpoint.config.samefile(far / "config.json")
    assert not project.checked("n")


def test_a_manifest_outside_the_project_is_remembered_too(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "o.yaml"
    outside.write_text(f"extends: {project.manifests / 'base.yaml'}\n")
    first = project.load(str(outside))
    assert not project.checked(str(outside))
    assert project.load(str(outside)) == first


def test_an_edit_while_the_manifest_is_checked_is_not_lost(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = project.manifests / "m.yaml"
    manifest.write_text("extends: base.yaml\nopset: 18\n")

    def edited_meanwhile(name_or_path: str, root: Path) -> Manifest:
        found = project._real(name_or_path, root)
        manifest.write_text("extends: base.yaml\nopset: 20\n")
        return found

    monkeypatch.setattr(checking, "load", edited_meanwhile)
    assert project.load().opset == 18
    assert project.load().opset == 20


def test_what_code_edited_meanwhile_let_pass_is_not_remembered(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.manifests / "m.yaml").write_text("extends: base.yaml\nopset: 20\n")

    def edited_meanwhile(name_or_path: str, root: Path) -> Manifest:
        _append(project.package / "manifest" / "checks.py", "\n")
        return project._real(name_or_path, root)

    monkeypatch.setattr(checking, "load", edited_meanwhile)
    project.load()
    monkeypatch.setattr(checking, "load", project._checked)
    assert project.checked()


def test_an_editors_lock_file_is_no_module(project: Project) -> None:
    (project.package / ".#plan.py").symlink_to("nobody@nowhere")
    assert not project.checked()


def test_a_folder_that_cannot_be_written_only_costs_time(project: Project) -> None:
    shutil.rmtree(project.entries)
    project.entries.write_text("no folder")
    assert project.checked()
    assert project.checked()
    assert project.entries.read_text() == "no folder"


def test_no_entry_names_the_folder_of_the_project(project: Project) -> None:
    assert str(project.root) not in _entry(project).read_text()


def test_a_hit_imports_neither_yaml_nor_pydantic(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from sam3_build.digest import DigestCache
from sam3_build.manifest.cache import load
folder = Path({str(tmp_path)!r})
load("sam3_mini", Path({str(ROOT)!r}), DigestCache(folder / "digests"), folder / "entries")
print(sorted({{"yaml", "pydantic", "pydantic_core"}} & sys.modules.keys()))
"""
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        for _ in range(2)
    ]
    assert said == ["['pydantic', 'pydantic_core', 'yaml']\n", "[]\n"]


def _entry(project: Project) -> Path:
    (entry,) = project.entries.iterdir()
    return entry


def _append(path: Path, text: str) -> None:
    _edit(path, "", text)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1) if old else text + new)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_a_folder_of_shards_is_looked_into_on_every_start(project: Project) -> None:
    several = project.manifests / "several"
    several.mkdir()
    for name in ("config.json", "a.safetensors", "b.safetensors", "tokenizer.json"):
        (several / name).write_text("")
    index = several / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    (project.manifests / "n.yaml").write_text("extends: base.yaml\ncheckpoint: {path: several}\n")
    assert len(project.load("n").checkpoint.files) == 3
    project.load("n")
    assert not project.checked("n")
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    assert set(project.load("n").checkpoint.files) == {"config", "weights", "shard0", "shard1"}
    (several / "model.safetensors").write_text("")
    assert set(project.load("n").checkpoint.files) == {"config", "weights"}
    assert not project.checked("n")
