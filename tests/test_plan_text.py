"""`sam3-build plan` for people: root causes, sizes, counts, and whether it fits; in 100 columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from build_space import BuildSpace

from sam3_build.commands.plan_text import render_plan
from sam3_build.execution.session import Session, open_session
from sam3_build.store.explain import Difference, Explanation, explain_plan
from sam3_build.store.resolve import State
from sam3_build.store.sizes import free_bytes, readable_size

ROOT = Path(__file__).parents[1]
MANIFEST = "manifests/toy.yaml"


def because(space: BuildSpace) -> dict[str, list[str]]:
    run = space.cli("plan", "--json")
    assert run.code == 0, run.output
    return {row["action"]: row["because"] for row in json.loads(run.output)}


# ------------------------------------------------------------------ root causes


def test_what_waits_names_what_changed_and_not_only_what_stands_before_it(space: BuildSpace) -> None:
    space.edit("sam3_build/families/toy/modules.py", "z = y @ p", "z = y @ p + 1")
    found = because(space)
    cause = ["waits for checkpoint (stale: recipe.families.toy.modules changed)"]
    assert [found[f"{stage}:head{rest}"] for stage, rest in (("simplify", ""), ("precision", ".fp16"))] == [cause] * 2
    assert found["build:head.fp16.ada"] == found["verify:head.fp16"] == cause


def test_all_roots_are_named_and_each_once(space: BuildSpace) -> None:
    space.edit(MANIFEST, "\n  head: {", "\n  head: {opset: 19, ")
    space.edit(MANIFEST, "red circle", "blue circle")
    assert because(space)["verify:head.fp16"] == [
        "waits for samples (stale: params.samples.0.prompts.text: red circle -> blue circle)",
        "waits for export:head (stale: params.opset: 20 -> 19)",
    ]


def test_a_cause_with_many_changes_names_the_first_and_counts_the_others(space: BuildSpace) -> None:
    space.edit(MANIFEST, "\n  head: {", "\n  head: {opset: 19, ")
    space.install("torch", "99.0")
    (cause,) = because(space)["simplify:head"]
    assert cause == "waits for export:head (stale: params.opset: 20 -> 19, and 1 more)"


def test_nothing_built_waits_for_the_checkpoint_alone(fresh: BuildSpace) -> None:
    found = because(fresh)
    assert found.pop("checkpoint") == ["never built"]
    assert {tuple(reasons) for reasons in found.values()} == {("waits for checkpoint (stale: never built)",)}


# ------------------------------------------------------------------ bytes


def session_with_inventory(tmp_path: Path) -> Session:
    """The default manifest's plan, on a store that holds nothing but an inventory of a thousand numbers a component."""
    found = open_session(ROOT, None, {"SAM3_STORE": str(tmp_path / "store")})
    store = found.store
    answer = found.resolver.resolve("checkpoint")
    assert answer.key and answer.document
    out = store.workdir(answer.key)
    (out / "config.json").write_text("{}")
    for component in found.manifest.components:
        tensors = {"a.weight": {"dtype": "bfloat16", "shape": [30, 30]}, "a.bias": {"dtype": "float32", "shape": [100]}}
        (out / f"{component}.json").write_text(json.dumps({"tensors": tensors}))
    store.commit(key=answer.key, action="checkpoint", document=answer.document, out=out, facts={}, provenance={})
    return found


def test_what_was_never_built_is_estimated_from_the_inventory(tmp_path: Path) -> None:
    session = session_with_inventory(tmp_path)
    needed = {
        e.action: e.bytes_needed for e in explain_plan(session.plan, session.store, session.resolver, session.view)
    }
    assert needed["checkpoint"] == 0
    assert {needed[f"{stage}:decoder"] for stage in ("export", "simplify")} == {4000}
    assert needed["patch:vision_encoder"] == 4000
    assert (needed["precision:decoder.fp32"], needed["precision:decoder.fp16"]) == (4000, 2000)
    assert (needed["build:decoder.fp32.ada"], needed["build:decoder.fp16.ada"]) == (4000, 2000)
    assert needed["build:decoder.fp16.cpu"] == 0
    assert {needed[name] for name in ("samples", "reference:decoder", "verify:decoder.fp16")} == {None}


def test_before_the_checkpoint_is_read_no_size_is_known(tmp_path: Path) -> None:
    session = open_session(ROOT, None, {"SAM3_STORE": str(tmp_path / "store")})
    found = explain_plan(session.plan, session.store, session.resolver, session.view)
    assert {e.bytes_needed for e in found} == {None}


def explanations() -> list[Explanation]:
    long = f"recipe.families.sam3_image.{'forward' * 12}: 0123456789ab -> ba9876543210"
    return [
        Explanation("checkpoint", State.FRESH, (), (), 0),
        Explanation(
            "export:decoder", State.STALE, ("params.opset: 20 -> 19",), (Difference("params.opset", 20, 19),), 6000
        ),
        Explanation(
            "build:geometry_encoder.fp16.blackwell", State.PENDING, (f"waits for x (stale: {long})",), (), 2000
        ),
        Explanation(
            "verify:geometry_encoder.fp16", State.PENDING, ("waits for x (stale)", "waits for y (stale)"), (), None
        ),
        Explanation("build:decoder.fp16.ada", State.BLOCKED, ("no library",), (), 0),
    ]


def test_the_text_is_a_line_per_action_with_reasons_beside_or_below() -> None:
    first, second, third, *rest = render_plan("mini", explanations(), 10_000).splitlines()
    assert first == "fresh              checkpoint"
    assert second == "stale      6.0 kB  export:decoder                         params.opset: 20 -> 19"
    assert third == "pending    2.0 kB  build:geometry_encoder.fp16.blackwell"
    assert all(line.startswith(" " * 21) for line in rest[:-5])
    assert rest[-5:] == [
        "pending         ?  verify:geometry_encoder.fp16",
        "                     waits for x (stale)",
        "                     waits for y (stale)",
        "blocked            build:decoder.fp16.ada                 no library",
        "mini: 1 fresh, 1 stale, 2 pending, 1 blocked; about 8.0 kB and 1 outputs of unknown size to write",
    ]


def test_the_text_fits_100_columns() -> None:
    assert max(map(len, render_plan("a_manifest_with_a_long_name", explanations(), 1).splitlines())) <= 100


def test_what_does_not_fit_on_the_disk_is_said() -> None:
    fits, tight = (render_plan("sam3_mini", explanations(), free) for free in (8000, 7999))
    assert "It does not fit" not in fits
    assert "It does not fit: 8.0 kB are free on the disk of the store; free some space" in tight
    assert "SAM3_STORE" in tight


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(free_bytes(tmp_path), rel=0.1)


@pytest.mark.parametrize(
    ("size", "text"), [(None, "?"), (0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e6, "2.0 MB"), (3.4e9, "3.40 GB")]
)
def test_sizes_read_well(size: int | None, text: str) -> None:
    assert readable_size(size) == text
