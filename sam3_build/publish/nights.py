"""Reads and writes `nightly/<date>.json`, and returns what changed since the night before.

A file holds all runs of its date, so that the run that builds nothing any more does not hide why the first one built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from sam3_build.compare.dependencies import Judged
from sam3_build.compare.judge import outcome
from sam3_build.errors import BuildError
from sam3_build.folders import write_atomically
from sam3_build.spec import Json
from sam3_build.store.objects import Record
from sam3_build.store.writing import writing

Run = Mapping[str, Json]

# What `changes` reads of the entries of a run's lists.
_READ = {"built": ("action",), "verdicts": ("comparison", "output", "verdict"), "published": ("target", "holds")}


def runs(path: Path) -> list[Run]:
    """Return the runs that a night's file holds, none when there is no such file.

    BuildError when it cannot be read, or a run lacks what `changes` reads
    """
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_bytes())["runs"]
        if not isinstance(found, list):
            raise TypeError("`runs` is no list")
        for run in found:
            _usable(run)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{path} cannot be read as a night ({type(error).__name__}: {error}); move it away") from error
    return found


def _usable(run: Json) -> None:
    """Do nothing for a run that `changes` can read. TypeError or KeyError for any other."""
    if not isinstance(run, Mapping):
        raise TypeError("a run is no mapping")
    if not isinstance(run["outputs"], Mapping):
        raise TypeError("`outputs` is no mapping")
    for name, fields in _READ.items():
        entries = run[name]
        if not isinstance(entries, list):
            raise TypeError(f"`{name}` is no list")
        for entry in entries:
            if not isinstance(entry, Mapping):
                raise TypeError(f"an entry of `{name}` is no mapping")
            for field in fields:
                entry[field]  # KeyError, by its name


def append(path: Path, run: Run) -> None:
    """Add a run to a night's file. The caller holds a lock, since this reads and writes."""
    with writing(path):
        document = {"date": path.stem, "runs": [*runs(path), run]}
        write_atomically(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def before(path: Path, tell: Callable[[str], object]) -> tuple[str, Run] | None:
    """Return the date and the last run of the newest earlier night, None for the first night ever.

    One that cannot be read is told and left out: what happened to a file of last week must stop no night.
    """
    dates = sorted(p.stem for p in path.parent.glob("*.json") if re.fullmatch(r"\d{4}-\d\d-\d\d", p.stem))
    for date in reversed([date for date in dates if date < path.stem]):
        try:
            found = runs(path.with_name(f"{date}.json"))
        except BuildError as error:
            tell(f"not compared with {date}: {error}\n")
            continue
        if found:
            return date, found[-1]
    return None


# ------------------------------------------------------------------ what a run holds


def verdicts(found: Judged) -> list[Json]:
    """Return one entry per output of each comparison: its worst verdict, and why."""
    lines: list[Json] = []
    for comparison, rows in found:
        for output, group in groupby(rows, key=lambda row: row.output):
            judged = list(group)
            verdict = outcome(judged)
            why = next((row.reason for row in judged if row.verdict == verdict), None)
            lines.append({"comparison": comparison.name, "output": output, "verdict": verdict, "reason": why})
    return lines


def outputs(records: Mapping[str, Record]) -> dict[str, Json]:
    """Return action -> bytes, seconds of the run that made it, and digest of what it wrote."""
    return {
        name: {"bytes": record.size, "seconds": record.provenance.get("seconds"), "object": record.object}
        for name, record in records.items()
    }


def changes(old: Run, new: Run) -> dict[str, Json]:
    """Return what differs between two runs: verdicts, sizes, what is published, and seconds of what was built again."""
    built = {str(entry["action"]) for entry in _entries(new, "built")}
    was, now = _mapping(old, "outputs"), _mapping(new, "outputs")
    return {
        "verdicts": _differing(_by_output(old), _by_output(new)),
        "bytes": _differing(_field(was, "bytes", was.keys()), _field(now, "bytes", now.keys())),
        "seconds": _differing(_field(was, "seconds", built & was.keys()), _field(now, "seconds", built & was.keys())),
        "published": _differing(_states(old), _states(new)),
    }


def _entries(run: Run, name: str) -> list[Mapping[str, Json]]:
    found = run.get(name)
    assert isinstance(found, Sequence) and not isinstance(found, str)
    return [entry for entry in found if isinstance(entry, Mapping)]


def _mapping(run: Run, name: str) -> Mapping[str, Json]:
    found = run.get(name)
    assert isinstance(found, Mapping)
    return found


def _by_output(run: Run) -> dict[str, Json]:
    return {f"{entry['comparison']} {entry['output']}": entry["verdict"] for entry in _entries(run, "verdicts")}


def _field(entries: Mapping[str, Json], name: str, actions: object) -> dict[str, Json]:
    assert hasattr(actions, "__contains__")
    return {a: entry.get(name) for a, entry in entries.items() if a in actions and isinstance(entry, Mapping)}


def _states(run: Run) -> dict[str, Json]:
    """Return target -> what its folder holds, in words that stay the same as long as that does."""
    return {str(entry["target"]): entry["holds"] for entry in _entries(run, "published")}


def _differing(old: Mapping[str, Json], new: Mapping[str, Json]) -> dict[str, Json]:
    """Return name -> [was, is] of all that differs; None stands for "was not there"."""
    names = sorted({*old, *new})
    return {name: [old.get(name), new.get(name)] for name in names if old.get(name) != new.get(name)}


def lines(since: Mapping[str, Json]) -> Iterator[str]:
    """Yield what changed, one line each: verdicts first."""
    for what in ("verdicts", "published", "bytes", "seconds"):
        found = since[what]
        assert isinstance(found, Mapping)
        for name, pair in found.items():
            assert isinstance(pair, Sequence)
            old, new = (_said(value) for value in pair)
            yield f"{name}: {old} -> {new}" + (f" {what}" if what in ("bytes", "seconds") else "")


def _said(value: Json) -> str:
    return "nothing" if value is None else str(value).replace("_", " ")
