"""Versions of distributions as keys have them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from sam3_build.machine import toolchain


def test_versions_are_those_that_the_metadata_of_distributions_give() -> None:
    installed = {found.metadata["Name"]: found.version for found in metadata.distributions() if found.metadata["Name"]}
    assert len(installed) > 30
    assert {name: toolchain._version(name) for name in installed} == installed


@pytest.mark.parametrize(
    "text",
    [
        "Metadata-Version: 2.1\nName: odd\nversion: 1.2\n\nVersion: 9\n",
        "Name: odd\nSummary: Version: 9\nVersion:  1.2\n",
    ],
)
def test_a_version_is_read_from_the_headers_alone(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd-7.dist-info").mkdir()
    (tmp_path / "odd-7.dist-info" / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert toolchain._version("odd") == "1.2"


def test_what_is_not_installed_has_no_version() -> None:
    assert toolchain.version("no-such-distribution") == "absent"
