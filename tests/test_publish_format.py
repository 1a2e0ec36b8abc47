"""Publish formats: a layout names one, and its files lie in the published folder, checked and swapped with the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from build_space import BuildSpace
from test_publish import MANIFEST, checked, folder_of, names, on_an_rtx_4090, said

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.publish.format import Format, format_named

FAMILY = "sam3_build/families/toy/family.py"
FORMAT = """
from sam3_build.publish.format import Format


def files(found):
    folder, head = f"kiosk/{found.precision.name}", found.networks["head"]
    engine = {f"{folder}/head.engine": head.engine} if head.engine else {}
    tensors = {f"{folder}/kiosk.txt": repr(head.tensors).encode()}
    return {f"{folder}/head.onnx": next(iter(head.graph.values())), **engine, **tensors}


FORMAT = Format(
    name="kiosk",
    refuses=lambda backend: "a kiosk loads no engines" if backend == "REFUSED" else None,
    unfit=lambda network: None,
    files=files,
    notes=lambda found: [f"Runs in kiosks, in {found.precision.name}."],
)
"""
DIMS = 'dynamic_dims=("batch", "num_boxes"),'


UNFIT = """f"{network.component.name} takes {network.profiles[0]['batch']} and no more\""""
FORMAT_FILE = "sam3_build/publish/formats/kiosk.py"


def for_kiosks(space: BuildSpace, refused: str = "tensorrt_rtx") -> BuildSpace:
    """Let the layout of the toy project be published for kiosks, which take no target of the backend `refused`."""
    (space.root / FORMAT_FILE).write_text(FORMAT.replace("REFUSED", refused))
    space.edit(FAMILY, DIMS, f'{DIMS} published_as="kiosk",')
    return space


@pytest.fixture
def kiosk(space: BuildSpace) -> BuildSpace:
    return for_kiosks(space)


@pytest.fixture
def gpu(built: BuildSpace, tmp_path: Path) -> BuildSpace:
    return on_an_rtx_4090(built, tmp_path / "project")


def test_the_files_of_a_format_are_published_with_the_rest_and_checked(kiosk: BuildSpace) -> None:
    run = kiosk.build("publish:cpu")
    assert run.built == set(), "what a layout is published as is in no key"
    folder = folder_of(kiosk, "cpu")
    assert {path.name for path in (folder / "kiosk").iterdir()} == {"fp32", "fp16"}
    for precision in ("fp32", "fp16"):
        mine = folder / "kiosk" / precision
        assert (mine / "head.onnx").read_bytes() == (folder / f"head.{precision}.onnx").read_bytes()
        assert (mine / "kiosk.txt").read_text() == repr(
            {"y": ("batch", 4), "p": ("batch", "num_boxes"), "z": ("batch", "num_boxes")}
        )
        assert f"## Where it runs\n\nRuns in kiosks, in {precision}.\n" in (folder / f"head.{precision}.md").read_text()
    done = checked(folder)
    assert (done.returncode, done.stdout.count("kiosk/")) == (0, 4), done.stdout + done.stderr
    assert "  unchanged  cpu " in kiosk.build("publish:cpu").output
    planted = folder / "kiosk" / "fp16" / "head.onnx"
    planted.chmod(0o644)
    planted.write_bytes(b"something else")
    (folder / "kiosk" / "empty").mkdir()
    run = kiosk.build("publish:cpu")
    assert "restored kiosk/empty, kiosk/fp16/head.onnx: not as SHA256SUMS lists it" in run.output
    assert checked(folder).returncode == 0 and not (folder / "kiosk" / "empty").exists()


def test_a_target_that_the_product_cannot_load_is_refused_with_the_reason(kiosk: BuildSpace) -> None:
    kiosk.edit(MANIFEST, 'compute_capabilities: ["8.9"]}', 'compute_capabilities: ["8.9"], allow_unverified: true}')
    run = kiosk.doit("publish:ada")
    words = "unsuitable: a kiosk loads no engines encoder.fp32, encoder.fp16, head.fp32, head.fp16"
    assert run.code == 1 and words in said(run.output) and names(kiosk, "ada") == set(), run.output


def test_a_night_counts_a_target_that_no_machine_could_load_as_no_failure(kiosk: BuildSpace) -> None:
    run = kiosk.doit("nightly")
    assert run.code == 0 and "unsuitable: a kiosk loads no engines" in said(run.output), run.output


def test_engines_lie_beside_their_graphs_and_are_refused_where_the_product_feeds_them_more(gpu: BuildSpace) -> None:
    for_kiosks(gpu, refused="nothing")
    gpu.build("publish:ada")
    folder = folder_of(gpu, "ada")
    for precision in ("fp32", "fp16"):
        mine = folder / "kiosk" / precision
        assert (mine / "head.engine").read_bytes() == (folder / f"head.{precision}.ada.engine").read_bytes()
        assert (mine / "head.onnx").read_bytes() == (gpu.view / "head" / f"head.{precision}.onnx").read_bytes()
    assert checked(folder).returncode == 0
    gpu.edit(FORMAT_FILE, "unfit=lambda network: None", f"unfit=lambda network: {UNFIT}")
    run = gpu.doit("publish:ada")
    assert run.code == 1 and "unsuitable: encoder takes (1, 1, 8) and no more" in said(run.output), run.output


def test_without_a_format_nothing_is_added(space: BuildSpace) -> None:
    space.build("publish:cpu")
    assert all(path.is_file() for path in folder_of(space, "cpu").iterdir())
    assert "## Where it runs" not in (folder_of(space, "cpu") / "head.fp32.md").read_text()


def test_every_format_that_a_layout_names_is_there() -> None:
    for name in registry.names("families"):
        for layout in registry.family(name).layouts.values():
            assert layout.published_as is None or isinstance(format_named(layout.published_as), Format)
    with pytest.raises(BuildError, match="no publish format named 'deepstrem'; did you mean 'deepstream'"):
        format_named("deepstrem")
