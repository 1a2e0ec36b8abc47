"""What spares toy projects their time changes nothing of what they do: a fork runs the project's own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from build_space import BuildSpace

CODE = ("report/html", "report", "compare")
WHERE = """\
import sam3_build.store
from sam3_build import registry
from sam3_build.report.html import page

print(registry.__file__, registry.PACKAGE, *sam3_build.store.__path__, *page.CODE, sep="\\n")
"""


def test_a_fork_runs_the_core_of_its_project_when_that_was_edited(space: BuildSpace) -> None:
    space.edit("sam3_build/commands/plan_text.py", "; about", "; all in all")
    assert "; all in all" in space.cli("plan").output
    space.edit("sam3_build/commands/plan_text.py", "; all in all", "; about")
    assert "; all in all" not in space.cli("plan").output


def test_a_fork_finds_files_and_plug_ins_in_its_project(space: BuildSpace) -> None:
    where = (
        "import sam3_build.store, sam3_build.registry as r; print(r.__file__, r.PACKAGE, *sam3_build.store.__path__)"
    )
    (space.root / "where.py").write_text(where)
    space.edit("dodo.py", "from pathlib", "import where\nfrom pathlib")
    package = space.root / "sam3_build"
    assert space.build("list").output.splitlines()[0] == f"{package / 'registry.py'} {package} {package / 'store'}"


@pytest.mark.parametrize("file", ["sam3_build/report/html/page.html.jinja", "sam3_build/report/html/page.css"])
def test_a_fork_draws_the_page_with_its_project_s_files(space: BuildSpace, file: str) -> None:
    space.append(file, "/* words of ours */\n")
    space.build("verify")
    assert "words of ours" in (space.view / "report.html").read_text()


def test_a_copy_knows_the_digests_and_the_manifest_of_what_it_was_copied_from(
    built: BuildSpace, tmp_path: Path
) -> None:
    built.build()
    copy = built.copy(tmp_path / "copy")
    known = json.loads((copy.artifacts / ".digests.json").read_bytes())["files"]
    entries = {path.name for path in (copy.artifacts / ".manifests").iterdir()}
    copy.build()
    assert json.loads((copy.artifacts / ".digests.json").read_bytes())["files"] == known
    assert {path.name for path in (copy.artifacts / ".manifests").iterdir()} == entries
