"""What a published folder holds: takes a candidate that nothing stands against, returns files, cards and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam3_build import registry
from sam3_build.compare.judge import worst
from sam3_build.manifest.paths import doit_call
from sam3_build.publish.card import GRAPH, Subject, card
from sam3_build.publish.checks import Candidate
from sam3_build.publish.deployment import deployments
from sam3_build.publish.description import description
from sam3_build.publish.items import Item, shown
from sam3_build.publish.reasons import Reason
from sam3_build.store.objects import Record
from sam3_build.store.view import sidecar


@dataclass(frozen=True)
class Content:
    """What a folder has to hold: every file, its sha256, and the bytes of those that are no cards or records."""

    files: Mapping[str, Path | bytes]
    digests: Mapping[str, str]
    sizes: Mapping[str, int]


def content_of(candidate: Candidate, reasons: Sequence[Reason], withheld: Mapping[str, tuple[Reason, ...]]) -> Content:
    """Return the files of all items, with a record and a card beside each, and what it takes to run them."""
    files: dict[str, Path | bytes] = {}
    digests: dict[str, str] = {}
    deployed = deployments(candidate)
    sizes: dict[str, int] = {}
    for item in candidate.items:
        record = candidate.record(item.source.name)
        assert record, "what is missing was refused"
        for file in shown(item, record):
            files[file.name] = candidate.session.resolver.folder(record) / file.source
            digests[file.name], sizes[file.name] = file.sha256, file.size
        main = shown(item, record)[0].name
        files[f"{main}.json"] = sidecar(item.source, record)
        files[f"{main.rpartition('.')[0]}.md"] = card(
            _subject(candidate, item, record, reasons, deployed[item.precision].notes), candidate.session.manifest
        )
    others = [description(candidate, withheld), *(each.files for each in deployed.values())]
    for name, content in (entry for other in others for entry in other.items()):
        files[name] = content
        if isinstance(content, Path):
            digests[name] = candidate.session.store.digests.file(content)
    texts = {name: content for name, content in files.items() if isinstance(content, bytes)}
    return Content(files, digests | {n: hashlib.sha256(t).hexdigest() for n, t in texts.items()}, sizes)


def _subject(
    candidate: Candidate, item: Item, record: Record, reasons: Sequence[Reason], notes: Sequence[str]
) -> Subject:
    checkpoint = candidate.record("checkpoint")
    assert checkpoint, "a record that leads to no checkpoint was refused"
    main, *data = shown(item, record)
    tested = {"opened by": item.built.name} if item.is_graph else {}
    tested |= {f"compared as {comparison.name}": comparison.action for comparison, _ in item.own if comparison.action}
    commit = checkpoint.facts.get("commit")
    return Subject(
        file=main.name,
        sha256=main.sha256,
        size=sum(file.size for file in (main, *data)),
        kind=GRAPH if item.is_graph else registry.backend(candidate.target.backend).product.removesuffix("s"),
        component=item.component,
        precision=item.precision,
        target=candidate.name,
        record=record,
        tested={what: found for what, action in tested.items() if (found := candidate.record(action))},
        weights=checkpoint.files[f"{item.component}.json"].sha256,
        commit=str(commit) if commit else None,
        rows=tuple(row for _, rows in item.own for row in rows),
        below=tuple(
            (comparison.label, comparison.name, worst(r.verdict for r in rows)) for comparison, rows in item.below
        ),
        runs_on=candidate.runs_on(item),
        unrun=tuple(dict.fromkeys(reason.why for reason in reasons if reason.what in item.names)),
        has_licence=candidate.licence is not None,
        notes=tuple(notes),
        call=doit_call(candidate.session.ownership.manifest),
    )
