"""Which licence holds for what is published, where its file is looked for, and what is not published without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sam3_build import registry
from sam3_build.manifest.types import Checkpoint, Hub
from sam3_build.publish.licence import licence_file, missing, notes
from sam3_build.spec import Licence

FAMILY = registry.family("sam3_image")
RANDOM = Checkpoint(0, None, None, None, {})
HUB = Checkpoint(None, Hub("facebook/sam3", "main"), None, None, {})


def at(path: Path) -> Checkpoint:
    return Checkpoint(None, None, path, None, {"weights": path})


def test_every_family_names_the_licence_of_its_official_weights_and_where_it_can_be_read() -> None:
    for name in registry.names("families"):
        licence = registry.family(name).licence
        assert licence and licence.name and licence.url.startswith("https://"), name


def test_a_licence_lies_beside_the_weights_or_in_the_repository_or_where_the_manifest_says(tmp_path: Path) -> None:
    weights, repository = tmp_path / "weights", tmp_path / "made"
    for folder in (weights, repository):
        folder.mkdir()
    assert licence_file(at(weights / "model.safetensors"), repository) is None
    (weights / "LICENSE.txt").write_text("You may.")
    (repository / "LICENSE").write_text("You may, too.")
    for path in (weights, weights / "model.safetensors"):
        assert licence_file(at(path), repository) == weights / "LICENSE.txt"
    (weights / "LICENSE").write_text("You may.")
    assert licence_file(at(weights), repository) == weights / "LICENSE"
    assert licence_file(HUB, repository) == repository / "LICENSE"
    assert licence_file(HUB, None) is None
    mine = tmp_path / "mine.txt"
    assert licence_file(replace(at(weights), licence=mine), repository) == mine


@pytest.mark.parametrize(
    ("checkpoint", "has_file", "is_refused"),
    [(HUB, False, True), (HUB, True, False), (RANDOM, False, False), (at(Path("sam3.pt")), False, True)],
)
def test_what_is_made_of_the_official_weights_goes_with_the_text_of_their_licence(
    checkpoint: Checkpoint, has_file: bool, is_refused: bool
) -> None:
    why = missing(FAMILY, checkpoint, Path("LICENSE") if has_file else None)
    assert (why is not None) == is_refused
    if why:
        for words in ("the SAM License", "https://github.com/facebookresearch/sam3/", "`licence:` in the manifest's"):
            assert words in why


def test_a_licence_that_does_not_ask_for_its_text_refuses_nothing() -> None:
    apache = replace(FAMILY, licence=Licence("Apache-2.0", "https://example.org/LICENSE"))
    assert missing(apache, HUB, None) is None and missing(replace(FAMILY, licence=None), HUB, None) is None


def test_a_card_says_which_licence_holds_and_names_that_of_the_official_weights() -> None:
    licence = FAMILY.licence
    assert licence
    official = f"The official weights of sam3_image are under the SAM License: {licence.url}"
    assert list(notes(FAMILY, RANDOM, False))[1:] == ["The weights are random numbers."]
    with_file, without = ("\n".join(notes(FAMILY, HUB, has_file)) for has_file in (True, False))
    assert "is the file LICENSE of this folder" in with_file and "No licence lay beside" not in with_file
    assert "No licence lay beside the weights." in without
    for text in (with_file, without):
        assert text.endswith(f"https://huggingface.co/facebook/sam3.\n{official}")
