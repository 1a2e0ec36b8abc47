"""What a comparison of results writes beside its statistics: what differs in detail, and which overlays it drew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from sam3_build.spec import Json

DETAILS = "details.json"


@dataclass(frozen=True)
class Overlay:
    """A PNG of one picture or frame, and what the report says below it.

    title:       which it is, and what was asked
    caption:     what was found on both sides
    differences: what a user would notice; empty where nothing differs in kind
    metrics:     of this picture alone; a gate that one of them does not hold makes the picture one that differs
    repeats:     whether it shows what another one shows, as a row of a batch does
    """

    file: str
    title: str
    caption: str
    differences: tuple[str, ...]
    metrics: Mapping[str, float]
    repeats: bool = False


def write_details(out: Path, details: Mapping[str, Json], overlays: Iterable[Overlay]) -> None:
    """Write DETAILS into the folder `out`: a kind's own `details`, and the overlays for the report."""
    listed: list[Json] = [
        {**asdict(overlay), "differences": list(overlay.differences), "metrics": dict(overlay.metrics)}
        for overlay in overlays
    ]
    (out / DETAILS).write_text(json.dumps({**details, "overlays": listed}, indent=1, allow_nan=False) + "\n")


def overlays_of(details: Mapping[str, Json]) -> tuple[Overlay, ...]:
    """Return the overlays that a document of details lists; none of an empty one."""
    listed = cast("Sequence[Mapping[str, Json]]", details.get("overlays", ()))
    return tuple(
        Overlay(
            file=str(one["file"]),
            title=str(one["title"]),
            caption=str(one["caption"]),
            differences=tuple(cast("Sequence[str]", one["differences"])),
            metrics=cast("Mapping[str, float]", one["metrics"]),
            repeats=bool(one["repeats"]),
        )
        for one in listed
    )
