"""Wrong samples are reported before anything is built: all of them, with file and line; by `plan` and by doit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from build_space import BuildSpace, copy_manifests, matching

from sam3_build.errors import BuildError, ManifestError
from sam3_build.execution.sample_problems import refuse_wrong_samples
from sam3_build.execution.schedule import restrict
from sam3_build.execution.session import Session, open_session
from sam3_build.manifest.load import load
from sam3_build.pipeline import images
from sam3_build.spec import SAMPLES

MANIFEST = "manifests/toy.yaml"
GOOD = "  - {image: scene.png, text: red circle}\n"
WRONG = """\
  - {image: scene.png, text: red circle}
  - {image: scene.png, boxes: "pos:100,1,5,5"}
  - {image: scene.png, text: blu circle}
  - {image: notes.txt, text: green circle}
"""
LINES = [
    f"{MANIFEST}:17: samples[1].boxes: lies outside",
    f"{MANIFEST}:18: samples[2].text: no token for 'blu'",
    f"{MANIFEST}:19: samples[3].image: notes.txt cannot be read as a picture",
]


def spoil(space: BuildSpace) -> None:
    """Make three of four samples wrong, each in another way."""
    (space.root / "manifests" / "notes.txt").write_text("no such thing")
    space.edit(MANIFEST, GOOD, WRONG)


# ------------------------------------------------------------------ doit


@pytest.mark.parametrize("words", [["build:head"], ["-n", "2"], ["--continue"], ["verify"]], ids=" ".join)
def test_all_wrong_samples_are_reported_with_their_lines_and_nothing_was_exported_or_built(
    fresh: BuildSpace, words: list[str]
) -> None:
    spoil(fresh)
    run = fresh.doit(*words)
    assert run.code != 0 and run.built == {"checkpoint"}, run.output
    said = "\n".join(["samples: 3 mistakes in the manifest:", *LINES, "  log: artifacts/toy/logs/samples.log"])
    assert run.output.count(said) == 1, run.output
    assert set(re.findall(r"^  run +(\S+)", run.output, re.M)) == {"checkpoint", "samples"}, run.output


def test_a_sample_of_an_extended_manifest_is_reported_with_that_files_line(fresh: BuildSpace) -> None:
    spoil(fresh)
    (fresh.root / "manifests/other.yaml").write_text("# one\n# two\nextends: toy.yaml\nopset: 19\n")
    run = fresh.doit("manifest=other", "samples")
    assert all(line in run.output.splitlines() for line in LINES), run.output


def test_lines_enter_no_key(space: BuildSpace) -> None:
    space.edit(MANIFEST, "family: toy\n", "# a comment\n\nfamily: toy\n")
    assert space.build().built == set()


def test_a_build_waits_for_the_samples_and_a_change_of_them_makes_no_build_stale(space: BuildSpace) -> None:
    space.edit(MANIFEST, GOOD, GOOD + "  - {image: scene.png, text: green circle}\n")
    assert space.build("build").built == {"samples"}


def test_fresh_builds_stay_fresh_while_samples_are_wrong(space: BuildSpace) -> None:
    spoil(space)
    assert space.doit().code == 1
    assert "build:head.fp16.ada is fresh" in space.cli("explain", "build:head.fp16.ada").output
    space.edit(MANIFEST, WRONG, GOOD)
    assert space.build().built == set()


def test_a_night_builds_nothing_on_wrong_samples_and_counts_what_is_fresh(space: BuildSpace) -> None:
    spoil(space)
    space.edit(MANIFEST, '["8.9"]', '["8.6"]')
    run = space.doit("nightly")
    assert run.code == 2 and run.built == set() and all(line in run.output for line in LINES), run.output
    stale = matching("samples", "reference:*", "verify:*", "build:*.ada")
    assert f"0 built, {25 - len(stale)} fresh, 1 FAILED" in run.output


# ------------------------------------------------------------------ plan


def test_plan_says_the_same_lines_and_ends_with_1_whether_or_not_the_checkpoint_was_read(
    fresh: BuildSpace, space: BuildSpace
) -> None:
    for project in (fresh, space):
        spoil(project)
        for words in ((), ("--json",)):
            run = project.cli("plan", *words)
            assert (run.code, run.output.splitlines()) == (1, LINES)


def mini(folder: Path, samples: str = "") -> Session:
    """A session of the default manifest, or with other samples, on an empty store."""
    copy_manifests(folder)
    (folder / "manifests/mine.yaml").write_text(f"extends: sam3_mini.yaml\n{samples}")
    return open_session(folder, "mine", {"SAM3_STORE": str(folder / "store")})


def commit(session: Session, name: str, file: str) -> None:
    """Put an output of the action `name` into the store: its one file is of the manifest's folder."""
    answer = session.resolver.resolve(name)
    assert answer.key and answer.document
    out = session.store.workdir(answer.key)
    (out / Path(file).name).write_bytes((session.manifest.path.parent / file).read_bytes())
    session.store.commit(key=answer.key, action=name, document=answer.document, out=out, facts={}, provenance={})


def test_plan_opens_pictures_while_samples_are_stale_and_none_when_they_are_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise BuildError(f"{path.name} was opened")

    monkeypatch.setattr(images, "read", refuse)
    session = mini(tmp_path)
    with pytest.raises(ManifestError, match=r"samples\[0\]\.image: scene1\.png was opened"):
        refuse_wrong_samples(session)
    commit(session, "checkpoint", "sam3_mini/config.json")
    with pytest.raises(ManifestError, match=r"samples\[5\]\.image: scene2\.png was opened"):
        refuse_wrong_samples(session)
    commit(session, SAMPLES, "sam3_mini/numbers.json")
    refuse_wrong_samples(session)


def test_what_is_wrong_with_texts_boxes_and_pictures_is_found_without_running_anything(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    session = mini(
        tmp_path,
        f"""\
samples:
  - {{image: samples/scene1.png, text: red circle}}
  - image: samples/scene1.png
    text: {"red " * 31}
    boxes: "pos:1,1,9,9;neg:168,1,9,9;pos:1,-9,9,9"
  - {{image: samples/scene2.png, text: red cirle}}
  - {{image: {tmp_path / "notes.txt"}, text: {"cirle " * 31}, boxes: "pos:1000,1,1,1"}}
""",
    )
    with pytest.raises(ManifestError) as found:
        refuse_wrong_samples(session)
    words = [
        r"mine\.yaml:5: samples\[1\]\.text: the text .* is 33 tokens long, .* the text encoder reads 32",
        r"mine\.yaml:6: samples\[1\]\.boxes: the box 168,1,9,9 lies outside scene1\.png, which is 168 x 168 pixels",
        r"mine\.yaml:6: samples\[1\]\.boxes: the box 1,-9,9,9 lies outside scene1\.png",
        r"mine\.yaml:7: samples\[2\]\.text: .* no token for some word of 'red cirle' .*did you mean 'circle'\?",
        r"mine\.yaml:8: samples\[3\]\.text: .* is 33 tokens long, .*; the tokenizer has no token for some word",
        r"mine\.yaml:8: samples\[3\]\.image: notes\.txt cannot be read as a picture",
    ]
    assert len(found.value.problems) == len(words), found.value
    for pattern, line in zip(words, found.value.problems, strict=True):
        assert re.search(pattern, line), line


def test_a_file_that_is_no_tokenizer_is_reported_once_beside_the_boxes(tmp_path: Path) -> None:
    session = mini(
        tmp_path,
        'tokenizer: sam3_mini/config.json\nsamples: [{image: samples/scene1.png, text: x, boxes: "pos:200,1,1,1"}]\n',
    )
    with pytest.raises(ManifestError) as found:
        refuse_wrong_samples(session)
    first, second = found.value.problems
    assert "mine.yaml:2: tokenizer: config.json is not a tokenizer file" in first
    assert "mine.yaml:3: samples[0].boxes: the box 200,1,1,1 lies outside" in second


def test_a_picture_that_goes_after_the_manifest_was_read_is_reported_with_its_line(tmp_path: Path) -> None:
    session = mini(tmp_path, "samples: [{image: samples/scene1.png, text: red circle}]\n")
    commit(session, "checkpoint", "sam3_mini/config.json")
    (tmp_path / "manifests/samples/scene1.png").unlink()
    with pytest.raises(ManifestError, match=r"mine\.yaml:2: samples\[0\]\.image: scene1\.png cannot be read: No such"):
        refuse_wrong_samples(session)


def test_what_search_and_localize_make_up_comes_after_the_samples_too(tmp_path: Path) -> None:
    session = mini(tmp_path)
    asked = restrict(session, session.plan, [session.plan.action("export:decoder")])
    assert [action.name for action in asked.plan.actions] == ["checkpoint", SAMPLES, "export:decoder"]


# ------------------------------------------------------------------ load

THREE = """\
samples:
  - {image: samples/scene1.png, boxes: "pos:400,400,9,9"}
  - {image: samples/scene2.png, text: red cirle}
  - {image: samples/missing.png, text: yelow star}
"""


def test_a_missing_picture_is_reported_with_all_else_that_is_wrong_with_samples(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as found:
        mini(tmp_path, THREE)
    places = [re.sub(r".*(mine\.yaml:\d+: \S+): .*", r"\1", line) for line in found.value.problems]
    assert places == [
        "mine.yaml:3: samples[0].boxes",
        "mine.yaml:4: samples[1].text",
        "mine.yaml:5: samples[2].image",
        "mine.yaml:5: samples[2].text",
    ]
    assert "no such file 'missing.png'" in found.value.problems[2]


def test_samples_that_cannot_be_read_are_left_out_and_others_are_judged_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as found:
        mini(
            tmp_path,
            "tokenizer: nowhere.json\n"
            "samples:\n"
            "  - {text: red cirle}\n"
            '  - {image: samples/scene1.png, text: red cirle, boxes: "pos:400,400,9,9"}\n'
            '  - {image: samples/scene1.png, boxes: "pos:400"}\n',
        )
    places = [re.sub(r".*(mine\.yaml:\d+: \S+): .*", r"\1", line) for line in found.value.problems]
    assert places == [
        "mine.yaml:2: tokenizer",
        "mine.yaml:4: samples[0].image",
        "mine.yaml:5: samples[1].boxes",
        "mine.yaml:6: samples[2].boxes",
    ]


def test_loading_a_manifest_with_a_mistake_elsewhere_opens_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "read", lambda path: pytest.fail(f"{path} was opened"))
    copy_manifests(tmp_path)
    load("sam3_mini", tmp_path)
    (tmp_path / "manifests/mine.yaml").write_text("extends: sam3_mini.yaml\nopset: 99\n")
    with pytest.raises(ManifestError, match="opset"):
        load("mine", tmp_path)
