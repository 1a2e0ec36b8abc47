"""All that is wrong with a manifest, reported at once: the whole text, of the real families, backends and patches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sam3_build.errors import ManifestError
from sam3_build.manifest.load import load

WRONG = Path(__file__).parent / "golden" / "wrong.yaml"


def test_all_mistakes_of_a_manifest_are_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(WRONG.read_text())
    with pytest.raises(ManifestError) as caught:
        load("wrong.yaml", tmp_path)
    golden("wrong.txt", f"{caught.value}\n")
