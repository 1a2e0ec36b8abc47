"""A family's code as stages get it: each part when it is asked for, and what every family must have in it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from build_space import ROOT

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.family_code import Networks, Prompts, Results

# What only a family whose pipelines take clips has.
OF_CLIPS = {"frame_arrays", "clip_arrays"}

PROTOCOLS = {"modules": Networks, "prompts": Prompts, "results": Results}


@pytest.mark.parametrize("part", PROTOCOLS)
@pytest.mark.parametrize("family", registry.names("families"))
def test_every_part_of_a_family_has_what_stages_use(family: str, part: str) -> None:
    code = registry.family_code(family)
    wanted = {name for name in vars(PROTOCOLS[part]) if not name.startswith("_")}
    if not any(pipeline.name == "video" for layout in code.family.layouts.values() for pipeline in layout.pipelines):
        wanted -= OF_CLIPS
    assert wanted and wanted <= set(dir(getattr(code, part)))


@pytest.mark.parametrize("family", registry.names("families"))
def test_a_familys_tables_make_a_format_of_each_of_their_names(family: str) -> None:
    tables = registry.family_code(family).keys
    assert len({form.title for form in tables.formats}) == len(tables.formats) > 0
    assert all(form.roots for form in tables.formats)


@pytest.mark.parametrize("part", ["family", "keys", "prompts", "results"])
def test_a_part_that_is_no_pytorch_loads_none(part: str) -> None:
    code = f"""
import json, sys
from sam3_build import registry
registry.family_code("sam3_image").{part}
print(json.dumps([name for name in sys.modules if name in ("torch", "transformers") or "torch_modules" in name]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_a_part_that_a_family_lacks_is_named() -> None:
    with pytest.raises(BuildError, match=r"^family 'sam3_image' has no sam3_build/families/sam3_image/loops\.py$"):
        registry.family_code("sam3_image").loop("track")
    with pytest.raises(BuildError, match=r"no keys named 'sam3_imag'; did you mean 'sam3_image'"):
        _ = registry.family_code("sam3_imag").keys
