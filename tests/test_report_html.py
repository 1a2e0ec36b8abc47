"""What people read in `report.html`: verdicts first, nothing green that is unknown, one file that needs no other."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from build_space import BuildSpace
from report_worlds import FINE, NO_GPU, WORLDS, World, failing, mostly_not_run, not_judged, passing, session, world

from sam3_build.compare.dependencies import ALSO_FAILED
from sam3_build.compare.metrics import metrics_of
from sam3_build.report.html.chart import Axis, Error, axis, bars
from sam3_build.report.html.gather import gather
from sam3_build.report.html.page import HERE, _says, _stamped, render
from sam3_build.report.table import render as terminal_text
from sam3_build.spec import Comparison, Kind

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Document(HTMLParser):
    """Parses a page; knows its text, its ids, its links, its elements, and that every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, attribute: str) -> list[str]:
        return [str(attributes[attribute]) for _, attributes in self.elements if attribute in attributes]


def page(made: World) -> Document:
    return Document(render(made.known, made.found))


@pytest.fixture(params=sorted(WORLDS))
def any_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return WORLDS[request.param](tmp_path)


# ------------------------------------------------------------------ verdicts


def test_failures_are_said_first_with_what_failed_and_how_to_see_it_again(tmp_path: Path) -> None:
    said = page(failing(tmp_path)).text
    assert said.startswith("3 outputs failed · sam3_mini sam3_mini · verification report 3 outputs failed ")
    assert "FAILED: ada, blackwell" in said
    cause = r"decoder · pred_masks onnxruntime fp32 vs ada fp16 \(engine parity\) cosine is 0\.\d+, not >= 0\.999"
    assert re.search(cause, said)
    assert (
        said.index("What failed") < said.index("Not judged not judged, since") < said.index("Pictures: what was asked")
    )
    assert "doit manifest=sam3_mini verify:decoder.fp16.ada" in said
    assert "doit manifest=sam3_mini compare:fp16.blackwell" in said


def test_a_page_on_which_most_was_not_run_is_not_green_and_names_the_unverified_targets(tmp_path: Path) -> None:
    made = mostly_not_run(tmp_path)
    found = gather(made.known, made.found)
    assert (found.tone, found.headline) == ("not_run", "Mostly not verified")
    assert found.unverified == ("ampere", "ada", "blackwell")
    assert "UNVERIFIED: ampere, ada, blackwell" in page(made).text
    assert f"{NO_GPU} 78 outputs in 30 comparisons" in page(made).text


def test_only_a_page_without_any_gap_is_green(tmp_path: Path) -> None:
    for name, make in WORLDS.items():
        made = make(tmp_path / name)
        found = gather(made.known, made.found)
        assert (found.tone == "pass") == (name == "passing")
    assert "All 104 outputs passed" in page(passing(tmp_path / "again")).text


def test_what_rests_on_a_failure_is_shown_with_its_cause_and_its_values(tmp_path: Path) -> None:
    made = not_judged(tmp_path)
    said = page(made).text
    assert 'not judged, since vision_encoder failed in "pytorch fp32 vs onnxruntime fp32" 6 outputs in 3' in said
    (section,) = [s for s in gather(made.known, made.found).sections if s.component == "vision_encoder"]
    lines = [line for t in section.tables for part in t.parts for line in part.lines if "fp16" in part.comparison.label]
    assert {line.verdict for line in lines} == {"not_judged"}
    assert all(cell.text for line in lines for cell in line.cells if cell)
    assert "not measured" not in said


def test_of_what_is_not_judged_the_page_says_for_what_it_fails_on_its_own(tmp_path: Path) -> None:
    world = not_judged(tmp_path)
    why = "cosine is 0.5, not >= 0.999"
    made = [
        (c, tuple(replace(r, reason=f"{r.reason}{ALSO_FAILED}{why}") if r.metric == "cosine" else r for r in rows))
        for c, rows in world.found
    ]
    lines = [
        line
        for section in gather(world.known, made).sections
        for shown in section.tables
        for part in shown.parts
        for line in part.lines
        if line.verdict == "not_judged"
    ]
    assert lines and any(line.reasons == (why,) for line in lines)


def test_the_terminal_and_the_page_show_the_same_values(any_world: World) -> None:
    terminal = terminal_text(any_world.found)
    cells = [
        (line.output, cell.text)
        for section in gather(any_world.known, any_world.found).sections
        for shown in section.tables
        for part in shown.parts
        for line in part.lines
        for cell in line.cells
        if cell and cell.text
    ]
    assert len(cells) > 40
    lines = [line.split() for line in terminal.splitlines()]
    assert [pair for pair in cells if not any(set(pair) <= set(line) for line in lines)] == []


def test_every_metric_of_a_gate_has_its_words() -> None:
    for comparison in session().plan.comparisons:
        declared = metrics_of(comparison)
        assert {gate.metric for some in comparison.gates.values() for gate in some} <= declared.keys()
        assert all(metric.asks for metric in declared.values())


def test_a_target_that_runs_the_graph_stands_as_the_graph_does(tmp_path: Path) -> None:
    made = not_judged(tmp_path)
    by_name = {target.name: target for target in gather(made.known, made.found).targets}
    assert by_name["cpu"].standings == by_name["graph"].standings
    assert (by_name["cpu"].note, by_name["graph"].note) == ("runs the graph", "")
    assert [s.verdict for s in by_name["ada"].standings] == ["not_run", "not_run"]


def test_gates_that_prove_nothing_with_random_weights_are_named(tmp_path: Path) -> None:
    made = mostly_not_run(tmp_path)
    uses = {use.title: use for use in gather(made.known, made.found).gates}
    assert (uses["mask IoU"].judged, uses["mask IoU"].info, uses["mask IoU"].means) == (1, 1, "in part")
    assert (uses["cosine"].info, uses["cosine"].means) == (0, "yes")
    assert "mask IoU, box IoU, score diff, presence): random weights: what is found" in page(made).text
    assert "weights are random" not in page(made).text
    seeded = replace(made.known.manifest, checkpoint=replace(made.known.manifest.checkpoint, seed=0))
    assert "The weights are random." in page(replace(made, known=replace(made.known, manifest=seeded))).text


# ------------------------------------------------------------------ the file


def test_the_page_is_well_formed_and_needs_nothing_else(any_world: World) -> None:
    found = page(any_world)
    ids = found.all("id")
    assert len(ids) == len(set(ids)), "an id is there twice"
    assert {link.removeprefix("#") for link in found.all("href")} <= set(ids)
    assert all(source.startswith("data:image/png;base64,") for source in found.all("src"))
    assert not {tag for tag, _ in found.elements} & {"script", "link", "iframe", "object"}
    assert "http" not in (HERE / "page.css").read_text()
    assert all(attributes.get("alt") for tag, attributes in found.elements if tag == "img")


def test_every_table_is_in_a_box_that_scrolls_and_has_headers(any_world: World) -> None:
    text = render(any_world.known, any_world.found)
    tables = re.findall(r"<table.*?</table>", text, re.S)
    assert tables
    assert all('scope="col"' in table and 'scope="row' in table for table in tables)
    outside = re.sub(r'<div class="scroll".*?</table>\s*</div>', "", text, flags=re.S)
    assert re.findall(r"<table class=\"(\w+)\"|<table", outside) == ["bars"] * outside.count("<table")


def test_verdicts_are_words_and_not_only_colours(any_world: World) -> None:
    text = render(any_world.known, any_world.found)
    for badge in re.findall(r'<span class="badge \w+">(.*?)</span>', text, re.S):
        assert re.sub(r"<.*?>", "", badge).strip()
        assert 'href="#icon-' in badge
    shapes = dict(re.findall(r'<symbol id="icon-(\w+)".*?>(.*?)</symbol>', text))
    assert len(set(shapes.values())) == 5


def test_names_and_texts_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    made = world(tmp_path, asked=evil)
    text = render(replace(made.known, manifest=replace(made.known.manifest, name=evil)), made.found)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_overlays_are_inside_the_page_those_that_differ_first_and_the_rest_is_counted(tmp_path: Path) -> None:
    made = failing(tmp_path)
    shown = gather(made.known, made.found).pictures
    assert (len(shown.shown), shown.left_out) == (12, 12)
    assert [p.differs for p in shown.shown] == [True] * 3 + [False] * 9
    assert {p.side for p in shown.shown[:3]} == {"fp16 blackwell"}
    first = shown.shown[0]
    assert (first.title, first.said) == (
        'sample 0: "red circle"',
        "1 lost; 1 found, 2 by PyTorch; smallest mask IoU 0.910",
    )
    assert base64.b64decode(first.source.partition(",")[2]).startswith(b"\x89PNG")
    assert "12 more overlays" in page(made).text


def test_a_flipped_presence_is_said_below_its_overlay_which_comes_first(tmp_path: Path) -> None:
    def task(comparison: Comparison) -> Mapping[str, float]:
        return {**FINE, "presence": 1} if comparison.name == "pipeline.fp16.ada" else FINE

    made = world(tmp_path, task=task, pictures=1)
    first, *others = gather(made.known, made.found).pictures.shown
    assert (first.side, first.differs) == ("fp16 ada", True) and "presence 0.97 became 0.96" in first.said
    assert not any(other.differs or "presence" in other.said for other in others)


def test_missing_overlays_are_said(tmp_path: Path) -> None:
    made = world(tmp_path, pictures=0)
    assert "No overlay: what was run drew none." in page(made).text
    parts = [(c, rows) for c, rows in made.found if c.component != "pipeline"]
    assert "The whole pipeline is not compared" in page(replace(made, found=parts)).text


def test_nan_is_shown_and_not_drawn(tmp_path: Path) -> None:
    made = world(tmp_path, lambda c, o: float("nan") if (c.name, o) == ("decoder.fp16", "pred_masks") else 1e-6)
    (section,) = [s for s in gather(made.known, made.found).sections if s.component == "decoder"]
    drawn = {bar.error.side: bar for bar in dict(section.plot)["pred_masks"]}
    assert drawn["fp16 graph"].error.text == "128 NaN or Inf"
    assert (drawn["fp16 graph"].reach, drawn["fp16 graph"].error.verdict) == (None, "fail")


def test_lineage_leads_from_the_weights_to_every_engine(tmp_path: Path) -> None:
    made = passing(tmp_path)
    lineages = {lineage.component: lineage for lineage in gather(made.known, made.found).artifacts.lineages}
    decoder = lineages["decoder"]
    assert [link.stage for link in decoder.trunk] == ["weights", "export", "simplify", "patch"]
    assert [branch.precision.stage for branch in decoder.branches] == ["fp32", "fp16"]
    assert [link.stage for link in decoder.branches[1].built] == ["cpu", "ampere", "ada", "blackwell"]
    record = made.known.records["build:decoder.fp16.ada"]
    (engine,) = [link for link in decoder.branches[1].built if link.stage == "ada"]
    assert engine.digest == record.files["decoder.fp16.engine"].sha256[:12]


def test_what_is_not_built_says_so(tmp_path: Path) -> None:
    made = passing(tmp_path)
    records = {name: r for name, r in made.known.records.items() if name != "build:decoder.fp16.ada"}
    found = gather(replace(made.known, records=records), made.found).artifacts
    (row,) = [row for row in found.rows if (row.component, row.precision) == ("decoder", "fp16")]
    assert [file.why if file else None for file in row.files] == ["", "", "", "not built", ""]
    assert found.missing == ("not built",)


# ------------------------------------------------------------------ bars


def test_an_axis_holds_every_error_and_what_is_allowed() -> None:
    errors = [Error("o", "s", v, a, "pass", "") for v, a in ((3e-6, 1e-3), (0.02, 0.15), (None, None), (0.0, 1e-3))]
    found = axis(errors)
    assert (found.low, found.high) == (-6, 0)
    drawn = bars(errors, found)
    assert [bar.reach is None for bar in drawn] == [False, False, True, True]
    assert drawn[0].mark == drawn[3].mark == 50
    assert axis([]).low < axis([]).high


def test_the_mark_and_the_end_of_a_bar_agree_with_the_verdict(tmp_path: Path) -> None:
    made = failing(tmp_path)
    judged = [bar for s in gather(made.known, made.found).sections for _, some in s.plot for bar in some]
    marked = [bar for bar in judged if bar.reach is not None and bar.mark is not None]
    assert len(marked) > 50
    assert {bar.reach <= bar.mark for bar in marked if bar.error.verdict == "pass"} == {True}
    assert {bar.reach > bar.mark for bar in marked if bar.error.verdict == "fail"} == {True}


def test_a_log_axis_ends_somewhere() -> None:
    found = axis([Error("o", "s", 1e-300, 1e-3, "pass", "")])
    assert (found.low, found.high) == (-15, -3)
    assert Axis(-6, 0).percent(1e-300) == 0


# ------------------------------------------------------------------ colours


def schemes() -> dict[str, dict[str, str]]:
    css = (HERE / "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", css.partition("@media print")[0], re.S)
    found = {name: dict(re.findall(r"--([\w-]+): (#\w{6})", text)) for name, text in (("light", light), ("dark", dark))}
    assert found["light"].keys() == found["dark"].keys() > {"paper", "fail", "fail-tint"}
    return found


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_whatever_it_stands(scheme: str) -> None:
    colours = schemes()[scheme]
    papers = [colours[name] for name in colours if name == "paper" or name.startswith("tint") or name.endswith("-tint")]
    texts = ["ink", "soft", "link", "fail", "not_judged", "not_run", "pass", "info"]
    found = {(text, paper): contrast(colours[text], paper) for text in texts for paper in papers}
    assert {pair: round(ratio, 2) for pair, ratio in found.items() if ratio < 4.5} == {}
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


# ------------------------------------------------------------------ when it is written


def test_verify_writes_the_page_once_and_again_only_when_it_would_say_something_else(space: BuildSpace) -> None:
    space.build("verify")
    path = space.view / "report.html"
    before, stat = path.read_bytes(), path.stat()
    assert b"Mostly not verified" in before or b"Not all verified" in before
    space.build("verify")
    assert path.stat() == stat
    path.write_bytes(before.replace(b"not run", b"passed", 1))
    space.build("verify")
    assert path.read_bytes() == before
    path.unlink()
    space.build("verify")
    assert path.read_bytes() == before


def test_a_gate_that_is_moved_changes_the_page_without_running_anything(fresh: BuildSpace) -> None:
    fresh.build()
    path = fresh.view / "report.html"
    before = path.read_bytes()
    fresh.edit("manifests/toy.yaml", "{cosine: 0.99}", "{cosine: 0.9999999}")
    fresh.doit("verify")
    assert path.read_bytes() != before


def test_a_failed_action_takes_the_page_with_it(fresh: BuildSpace) -> None:
    fresh.build()
    assert (fresh.view / "report.html").is_file()
    fresh.edit("sam3_build/stages/verify.py", "    outputs = {", "    raise RuntimeError('broken')\n    outputs = {")
    assert fresh.doit("verify").code != 0
    assert not (fresh.view / "report.html").exists()


@pytest.mark.workers
def test_nothing_is_loaded_to_find_the_page_fresh(space: BuildSpace) -> None:
    space.build("verify")
    (space.root / "site").mkdir(exist_ok=True)
    (space.root / "site" / "jinja2.py").write_text("raise SystemExit('jinja2 was imported')\n")
    assert space.build("verify").code == 0
    (space.view / "report.html").unlink()
    assert "jinja2 was imported" in space.doit("verify").output


def test_the_stamp_is_of_the_page_and_of_what_it_was_made_of(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    stamped = _stamped(b"<!doctype html>\nsome text\n", "abc")
    path.write_bytes(stamped)
    assert _says(path, "abc")
    assert not _says(path, "abd")
    path.write_bytes(stamped + b" ")
    assert not _says(path, "abc")
    assert not _says(tmp_path / "missing", "abc")


def test_the_same_page_is_made_twice(tmp_path: Path) -> None:
    made = failing(tmp_path)
    assert render(made.known, made.found) == render(made.known, made.found)


def test_what_is_only_told_hides_no_verdict_beside_it(tmp_path: Path) -> None:
    made = passing(tmp_path)
    found = [
        (c, tuple(replace(row, verdict="info") if row.output == "pred_boxes" else row for row in rows))
        for c, rows in made.found
    ]
    shown = gather(made.known, found)
    assert {standing.verdict for target in shown.targets for standing in target.standings} == {"pass"}
    assert (shown.tone, shown.headline) == ("info", "All 96 outputs that could be judged passed")


def test_a_file_that_only_its_emulation_stands_for_is_told_apart(tmp_path: Path) -> None:
    made = passing(tmp_path)
    (graph, rows), *_ = [(c, rows) for c, rows in made.found if c.name == "decoder.fp16"]
    file = replace(graph, kind=Kind.FILE, action=None, not_run="its emulation is run", label="the file itself")
    not_run = tuple(replace(row, comparison=file.label, verdict="not_run", reason=file.not_run) for row in rows)
    (group,) = gather(made.known, [*made.found, (file, not_run)]).not_run
    assert (group.sides, group.commands, group.comparisons) == ((("fp16 file", "decoder"),), (), 1)


# ------------------------------------------------------------------ the reference gap


def test_a_reference_gap_is_told_and_stands_in_no_targets_verdict_and_no_chart(tmp_path: Path) -> None:
    def noise(comparison: Comparison, output: str) -> float:
        return 1e3 if comparison.kind == Kind.GAP else 1e-6

    without, made = (world(tmp_path / str(gap), noise=noise, gap=gap) for gap in (False, True))
    before, after = (gather(one.known, one.found) for one in (without, made))
    assert (after.targets, after.tone, after.axis) == (before.targets, before.tone, before.axis)
    assert after.counts.info > before.counts.info and after.counts.failed == before.counts.failed == 0
    said = page(made).text
    assert "reference gap hf" in said and "reported, not judged: code bases differ" in said
