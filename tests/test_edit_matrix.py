"""The specification of the build system: change X, then exactly these actions rerun; change it back, then none do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from build_space import ACTIONS, SHOWN, BuildSpace, matching

FAMILY = "sam3_build/families/toy"
MANIFEST = "manifests/toy.yaml"
HEAD_GRAPH = ("export:head", "simplify:head", "precision:head.*", "build:head.*", "verify:head.*")
ENCODER_PATCHED = ("precision:encoder.*", "build:encoder.*", "verify:encoder.*")


def edit(file: str, old: str, new: str) -> Callable[[BuildSpace], None]:
    return lambda space: space.edit(file, old, new)


def append(file: str, text: str) -> Callable[[BuildSpace], None]:
    return lambda space: space.append(file, text)


def install(distribution: str) -> Callable[[BuildSpace], None]:
    return lambda space: space.install(distribution, "99.0")


def remove_lines(file: str, *starts: str) -> Callable[[BuildSpace], None]:
    def change(space: BuildSpace) -> None:
        path = space.root / file
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(starts)]
        assert len(lines) - len(kept) == len(starts)
        path.write_text("".join(kept))

    return change


def rename_picture(space: BuildSpace) -> None:
    (space.root / "manifests/scene.png").rename(space.root / "manifests/view.png")
    space.edit(MANIFEST, "scene.png", "view.png")


def touch(space: BuildSpace) -> None:
    for file in (MANIFEST, "manifests/weights.safetensors", "manifests/scene.png", f"{FAMILY}/modules.py"):
        os.utime(space.root / file)


def edit_unseen(space: BuildSpace) -> None:
    """Change a byte and put the times back, as rsync and some editors do."""
    path = space.root / "manifests/weights.safetensors"
    before = path.stat()
    space.edit("manifests/weights.safetensors", '"head.w": 3', '"head.w": 4')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def replace_unseen(space: BuildSpace) -> None:
    """Put another file in its place that has the same size and time."""
    path = space.root / "manifests/weights.safetensors"
    other = path.with_name("other.json")
    other.write_text(path.read_text().replace('"head.w": 3', '"head.w": 4'))
    shutil.copystat(path, other)
    other.replace(path)


@dataclass(frozen=True)
class Edit:
    """A change, the actions that rerun for it (patterns), those that are new with it, and doit's exit code then."""

    what: str
    change: Callable[[BuildSpace], None]
    reruns: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    code: int = 0


EDITS = (
    Edit("nothing, in a checkout copied with its artifacts", lambda space: None),
    Edit("input files touched", touch),
    # ------------------------------------------------------------ code
    Edit("a comment in the family", append(f"{FAMILY}/modules.py", "# A comment.\n")),
    Edit("what is declared", append(f"{FAMILY}/family.py", "FOUR = 4\n"), ("checkpoint", "export:*")),
    Edit("a comment in the declaration", append(f"{FAMILY}/family.py", "# A comment.\n")),
    Edit("the layout of forward code", edit(f"{FAMILY}/modules.py", "{", "{\n    ")),
    Edit("a docstring in modules.py", edit(f"{FAMILY}/modules.py", '"""What', '"""All that')),
    Edit(
        "forward code of one component",
        edit(f"{FAMILY}/modules.py", "z = y @ p", "z = y @ p + 1"),
        ("checkpoint", "export:*", "reference:*", *HEAD_GRAPH),
    ),
    Edit(
        "forward code that computes the same",
        append(f"{FAMILY}/modules.py", "FOUR = 4\n"),
        ("checkpoint", "export:*", "reference:*"),
    ),
    Edit("how prompts become tensors", append(f"{FAMILY}/prompts.py", "FOUR = 4\n"), ("samples",)),
    Edit(
        "how weights are read",
        append(f"{FAMILY}/keys.py", "FOUR = 4\n"),
        ("checkpoint", "export:*", "reference:*"),
    ),
    Edit("the code of a stage", append("sam3_build/stages/simplify.py", "FOUR = 4\n"), ("simplify:*",)),
    Edit(
        "what a stage says of itself",
        edit("sam3_build/stages/simplify.py", 'summary="Toy: drop the spaces."', 'summary="Toy"'),
    ),
    Edit("the memory that a stage takes", edit("sam3_build/stages/build.py", "Memory(base=1)", "Memory(base=2)")),
    Edit("the code of a patch", append("sam3_build/patches/fold_toy.py", "FOUR = 4\n"), ("patch:encoder",)),
    Edit("the code of a patch that is not used", append("sam3_build/patches/drop_toy.py", "FOUR = 4\n")),
    Edit(
        "the code of a precision",
        append("sam3_build/precisions/fp16.py", "FOUR = 4\n"),
        ("precision:*.fp16", "verify:*.fp16"),
    ),
    Edit("the code of a backend", append("sam3_build/backends/tensorrt_rtx.py", "FOUR = 4\n"), ("build:*.ada",)),
    Edit("code that two backends share", append("sam3_build/backends/_tensorrt.py", "FOUR = 4\n"), ("build:*.ada",)),
    Edit("code that asks for the GPU", append("sam3_build/machine/gpu.py", "FOUR = 4\n")),
    Edit("a comment in the core", append("sam3_build/store/objects.py", "# A comment.\n")),
    Edit("code of the core", append("sam3_build/plan/make.py", "FOUR = 4\n")),
    Edit("how outputs are judged", append("sam3_build/compare/judge.py", "FOUR = 4\n")),
    # ------------------------------------------------------------ the manifest
    Edit("a comment in the manifest", append(MANIFEST, "# A comment.\n")),
    Edit("the opset of one component", edit(MANIFEST, "\n  head: {", "\n  head: {opset: 19, "), HEAD_GRAPH),
    Edit(
        "the opset of all components",
        edit(MANIFEST, "opset: 20", "opset: 19"),
        (*HEAD_GRAPH, "export:*", "simplify:*", "patch:*", *ENCODER_PATCHED),
    ),
    Edit("a profile of a dimension of all", edit(MANIFEST, "batch: [1, 1, 8]", "batch: [1, 2, 8]"), ("build:*.ada",)),
    Edit("a profile of a dimension of one", edit(MANIFEST, "[1, 8, 20]", "[1, 8, 24]"), ("build:head.*.ada",)),
    Edit("the name of a profile", edit(MANIFEST, "default: {batch", "usual: {batch")),
    Edit(
        "a kept pattern",
        edit(MANIFEST, "*norm*", "*softmax*"),
        ("precision:head.fp16", "build:head.fp16.*", "verify:head.fp16"),
    ),
    Edit("a tolerance", edit(MANIFEST, "cosine: 0.99}", "cosine: 0.9999999}"), code=1),
    Edit("a patch added", edit(MANIFEST, "[fold_toy]", "[fold_toy, drop_toy]"), ("patch:encoder", *ENCODER_PATCHED)),
    Edit(
        "a first patch added",
        edit(MANIFEST, "\n  head: {", "\n  head: {patches: [drop_toy], "),
        ("precision:head.*", "build:head.*", "verify:head.*"),
        new=("patch:head",),
    ),
    Edit(
        "a target added",
        edit(MANIFEST, "samples:", '  blackwell: {backend: tensorrt_rtx, compute_capabilities: ["12.0"]}\nsamples:'),
        new=tuple(f"build:{c}.{p}.blackwell" for c in ("encoder", "head") for p in ("fp32", "fp16")),
    ),
    Edit("a target removed", edit(MANIFEST, "  cpu: {backend: onnxruntime}\n", "")),
    Edit("a target renamed", edit(MANIFEST, "  ada: {", "  lovelace: {")),
    Edit("an option of a target", edit(MANIFEST, '["8.9"]', '["8.6", "8.9"]'), ("build:*.ada",)),
    Edit("a component removed", remove_lines(MANIFEST, "  head:", "tolerances:")),
    Edit("a precision removed", edit(MANIFEST, "[fp32, fp16]", "[fp16]")),
    Edit("a prompt", edit(MANIFEST, "red circle", "blue circle"), ("samples", "reference:*", "verify:*")),
    # ------------------------------------------------------------ input files
    Edit(
        "one tensor of one component",
        edit("manifests/weights.safetensors", '"head.w": 3', '"head.w": 4'),
        ("checkpoint", "reference:head", *HEAD_GRAPH),
    ),
    Edit("the layout of the checkpoint", append("manifests/weights.safetensors", " "), ("checkpoint",)),
    Edit("an edit that keeps size and mtime", edit_unseen, ("checkpoint", "reference:head", *HEAD_GRAPH)),
    Edit("another file of the same size and mtime", replace_unseen, ("checkpoint", "reference:head", *HEAD_GRAPH)),
    Edit("the picture", append("manifests/scene.png", "!"), ("samples",)),
    Edit("the name of the picture", rename_picture),
    # ------------------------------------------------------------ tools
    Edit("torch's version", install("torch"), ("export:*", "reference:*")),
    Edit("TensorRT-RTX's version", install("tensorrt_rtx"), ("build:*.ada",)),
    Edit("ONNX Runtime's version", install("onnxruntime"), ("build:*.cpu", "verify:*")),
    Edit("the version of a tool that nothing uses", install("matplotlib")),
)


@pytest.mark.parametrize("row", EDITS, ids=lambda row: row.what)
def test_exactly_these_actions_rerun_for_a_change_and_none_when_it_is_taken_back(row: Edit, space: BuildSpace) -> None:
    before, shown = space.sources(), space.shown()
    row.change(space)
    there = space.doit()
    assert there.code == row.code, there.output
    assert there.built == (matching(*row.reruns) if row.reruns else set()) | set(row.new), there.output
    assert len(there.built_lines) == len(there.built), there.output
    if row.code:
        assert "FAIL" in there.output and space.shown()["report.json"] != shown["report.json"]
    space.restore(before)
    back = space.build()
    assert back.built == set(), back.output
    assert space.shown().items() >= shown.items()


# ------------------------------------------------------------------ what happens to artifacts


def view(file: str) -> Callable[[BuildSpace], Path]:
    return lambda space: space.view / file


def output(action: str) -> Callable[[BuildSpace], Path]:
    return lambda space: next(space.object(action).iterdir())


def delete(find: Callable[[BuildSpace], Path]) -> Callable[[BuildSpace], None]:
    def damage(space: BuildSpace) -> None:
        path = find(space)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    return damage


def flip(find: Callable[[BuildSpace], Path]) -> Callable[[BuildSpace], None]:
    """Flip one bit in the middle of a file; size and mtime stay."""

    def damage(space: BuildSpace) -> None:
        path = find(space)
        before = path.stat()
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(before.st_mode)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return damage


def overwrite(find: Callable[[BuildSpace], Path], data: bytes) -> Callable[[BuildSpace], None]:
    def damage(space: BuildSpace) -> None:
        path = find(space)
        path.unlink()
        path.write_bytes(data)

    return damage


def claim_another_key(space: BuildSpace) -> None:
    path = space.view / "head/head.fp16.onnx.json"
    sidecar = json.loads(path.read_bytes()) | {"key": "0" * 64}
    path.chmod(0o644)
    path.write_text(json.dumps(sidecar))


@dataclass(frozen=True)
class Damage:
    """Something done to the artifacts, and the actions that are built or only restored to the view for it."""

    what: str
    damage: Callable[[BuildSpace], None]
    built: frozenset[str] = frozenset()
    restored: frozenset[str] = frozenset()


ENGINE = frozenset({"build:head.fp16.ada"})
GRAPH = frozenset({"precision:head.fp16"})

DAMAGES = (
    # ------------------------------------------------------------ the view
    Damage("an engine deleted", delete(view("head/head.fp16.ada.engine")), restored=ENGINE),
    Damage("an engine corrupted", flip(view("head/head.fp16.ada.engine")), restored=ENGINE),
    Damage("an engine truncated", overwrite(view("head/head.fp16.ada.engine"), b""), restored=ENGINE),
    Damage("the sidecar of an engine deleted", delete(view("head/head.fp16.ada.engine.json")), restored=ENGINE),
    Damage("an ONNX file corrupted", flip(view("head/head.fp16.onnx")), restored=GRAPH),
    Damage("a sidecar cut off", overwrite(view("head/head.fp16.onnx.json"), b'{"key": '), restored=GRAPH),
    Damage("a sidecar of something else", claim_another_key, restored=GRAPH),
    Damage(
        "a description deleted", delete(view("head/head.fp16.cpu.json")), restored=frozenset({"build:head.fp16.cpu"})
    ),
    Damage(
        "the folder of a component deleted", delete(view("head")), restored=frozenset(matching("*:head.*", among=SHOWN))
    ),
    Damage("the whole view deleted", delete(view("")), restored=SHOWN),
    Damage("the report deleted", delete(view("report.json"))),
    # ------------------------------------------------------------ the store
    Damage("an object deleted", delete(lambda space: space.object("export:head")), built=frozenset({"export:head"})),
    Damage("a file of an object deleted", delete(output("export:head")), built=frozenset({"export:head"})),
    Damage("a bit of an object flipped", flip(output("export:head")), built=frozenset({"export:head"})),
    Damage("a bit of a shown object flipped", flip(output("build:head.fp16.ada")), built=ENGINE),
    Damage(
        "a bit flipped in both store and view",
        lambda space: [
            flip(find)(space) for find in (output("build:head.fp16.ada"), view("head/head.fp16.ada.engine"))
        ],
        built=ENGINE,
    ),
    Damage("a record deleted", delete(lambda space: space.record("export:head")), built=frozenset({"export:head"})),
    Damage(
        "a record cut off",
        overwrite(lambda space: space.record("export:head"), b'{"key"'),
        built=frozenset({"export:head"}),
    ),
    Damage(
        "a record that is no record",
        overwrite(lambda space: space.record("export:head"), b"[]"),
        built=frozenset({"export:head"}),
    ),
    Damage("the history deleted", delete(lambda space: space.store / "names")),
    Damage("the whole store deleted", delete(lambda space: space.store), built=ACTIONS),
    # ------------------------------------------------------------ what only makes it faster
    Damage("the remembered digests deleted", delete(lambda space: space.artifacts / ".digests.json")),
    Damage("the remembered digests cut off", overwrite(lambda space: space.artifacts / ".digests.json", b"{")),
    Damage("the checkout's name deleted", delete(lambda space: space.artifacts / ".checkout")),
)


@pytest.mark.parametrize("row", DAMAGES, ids=lambda row: row.what)
def test_exactly_what_was_damaged_is_built_or_restored_and_the_result_is_the_same(
    row: Damage, space: BuildSpace
) -> None:
    shown = space.shown()
    row.damage(space)
    repaired = space.build()
    assert (repaired.built, repaired.restored) == (row.built, row.restored), repaired.output
    assert space.shown() == shown
    again = space.build()
    assert (again.built, again.restored) == (set(), set()), again.output


def test_a_fresh_clone_with_a_filled_store_builds_nothing(built: BuildSpace, fresh: BuildSpace, tmp_path: Path) -> None:
    store = shutil.copytree(built.store, tmp_path / "store")
    run = fresh.build(SAM3_STORE=str(store))
    assert (run.built, run.restored) == (set(), SHOWN), run.output
    assert fresh.shown() == built.shown()
    assert not fresh.store.exists()
    again = fresh.build(SAM3_STORE=str(store))
    assert (again.built, again.restored) == (set(), set()), again.output


def test_every_onnx_and_engine_has_a_sidecar_and_nothing_kept_names_an_absolute_path(built: BuildSpace) -> None:
    shown = {p for p in built.view.rglob("*") if p.suffix in (".onnx", ".engine")}
    assert len(shown) == 8
    for path in shown:
        sidecar = json.loads(path.with_name(f"{path.name}.json").read_bytes())
        assert {"key", "document", "files", "facts", "provenance"} <= sidecar.keys()
        assert sidecar["document"]["tools"] and sidecar["provenance"]["seconds"] >= 0
    texts = [p for p in built.artifacts.rglob("*") if p.is_file() and p.parent.name != "logs"]
    assert len(texts) > 50
    root = str(built.root).encode()
    assert [p for p in texts if root in p.read_bytes()] == []
    assert [p for p in built.artifacts.rglob("*") if p.is_symlink()] == []
