"""Publish formats: a layout names one, and its files lie in the published folder, checked and swapped with the rest."""

from __future__ import annotations

import pytest
from build_space import BuildSpace
from test_publish import MANIFEST, checked, folder_of, names, said

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.publish.format import Format, format_named

FAMILY = "sam3_build/families/toy/family.py"
FORMAT = '''
"""A format for tests."""

from sam3_build.publish.format import Format

FORMAT = Format(
    name="kiosk",
    refuses=lambda backend: "a kiosk loads no engines" if backend == "tensorrt_rtx" else None,
    unfit=lambda network: None,
    files=lambda found: {
        f"kiosk/{found.precision.name}/head.onnx": next(iter(found.networks["head"].graph.values())),
        f"kiosk/{found.precision.name}/kiosk.txt": repr(found.networks["head"].tensors).encode(),
    },
    notes=lambda found: [f"Runs in kiosks, in {found.precision.name}."],
)
'''


@pytest.fixture
def kiosk(space: BuildSpace) -> BuildSpace:
    """The built toy project, whose layout is published for kiosks too."""
    (space.root / "sam3_build/publish/formats/kiosk.py").write_text(FORMAT)
    space.edit(
        FAMILY, 'dynamic_dims=("batch", "num_boxes"),', 'dynamic_dims=("batch", "num_boxes"), published_as="kiosk",'
    )
    return space


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
