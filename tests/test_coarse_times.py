"""A file system that keeps whole seconds, through the front end: a save that no stat shows leaves the store right."""

from __future__ import annotations

import pytest
from build_space import BuildSpace

pytestmark = pytest.mark.workers

# Loaded by every Python of a space that finds it. config.json was saved at the second SAVED (ns), and whoever saves it
# again leaves it with the same times: the clock stands within that second. A worker finds it saved once more.
WITHIN_ONE_SECOND = """
import os, sys, time
saved, real = int(os.environ.get("SAVED", "0")), os.stat
def stat(path, *args, **kwargs):
    found = real(path, *args, **kwargs)
    if not str(path).endswith("manifests/config.json"):
        return found
    return os.stat_result(tuple(found)[:10], {"st_mtime_ns": saved, "st_ctime_ns": saved})
def save(event, args):
    if event == "open" and str(args[0]).endswith("manifests/config.json") and args[1] == "r" and not done:
        done.append(True)
        with open(args[0], "w") as file:
            file.write('{"save": 2}')
done = []
if saved:
    os.stat, time.time_ns = stat, lambda: saved + 900_000_000
    if "sam3_build.execution.worker" in sys.orig_argv:
        sys.addaudithook(save)
"""


def test_an_input_saved_twice_within_one_second_does_not_keep_the_second_output_under_the_first_key(
    fresh: BuildSpace,
) -> None:
    config = fresh.root / "manifests" / "config.json"
    site = fresh.root / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WITHIN_ONE_SECOND)
    config.write_text('{"save": 1}')
    run = fresh.doit("checkpoint", SAVED="1700000000000000000")
    assert config.read_text() == '{"save": 2}', "the worker did not find the second save"
    assert run.code == 1 and "Traceback" not in run.output, run.output
    assert "checkpoint: an input changed while it was running; nothing was kept, run it again" in run.output
    assert not list(fresh.store.glob("records/*/*.json"))
    for text in ('{"save": 2}', '{"save": 1}'):
        config.write_text(text)
        assert fresh.build("checkpoint").built == {"checkpoint"}
        assert (fresh.object("checkpoint") / "config.json").read_text() == text
