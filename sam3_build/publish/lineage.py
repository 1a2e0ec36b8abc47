"""Takes a record, returns the weights it was made from, and why a file that claims to be its output is not.

Keys are made of contents, so in a sound store nothing of other weights can stand under an action's name. Files leave
the store, though: an engine in a view may have been replaced by hand, or come with another manifest's record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sam3_build.spec import Json
from sam3_build.store.objects import Record, Store

_SHORT = 12


def weights_of(document: Mapping[str, Json], store: Store) -> str | None:
    """Return the sha256 of the inventory of tensors that a component's file was made from, by the document of its key.

    None where the chain of records breaks before the export, which reads the inventory: nothing tells then.
    """
    by_object: dict[str, Record] | None = None
    for _ in range(len(("build", "precision", "patch", "simplify", "export"))):
        inputs = document.get("inputs")
        if not isinstance(inputs, Mapping):
            return None
        if document.get("stage") == "export":
            return str(inputs["tensors"]) if "tensors" in inputs else None
        by_object = by_object if by_object is not None else _by_object(store)
        before = by_object.get(str(inputs.get("onnx")))
        if before is None:
            return None
        document = before.document
    return None


def _by_object(store: Store) -> dict[str, Record]:
    """Return object digest -> a record of it. Equal objects of two keys were made from equal weights.

    What passed its input on as it was did not make it: a chain that went there would end nowhere.
    """
    records = (store.record(path.stem) for path in (store.root / "records").glob("*/*.json"))
    return {record.object: record for record in records if record and not _passed_on(record)}


def _passed_on(record: Record) -> bool:
    inputs = record.document.get("inputs")
    return isinstance(inputs, Mapping) and inputs.get("onnx") == record.object


def foreign(file: Path, name: str, record: Record, store: Store) -> str | None:
    """Return why `file` is not what `record` calls `name`, in words that follow the file's path; None when it is.

    A record beside the file (`<file>.json`) tells where other bytes come from; without one their origin is unknown.
    """
    found, wanted = store.digests.file(file), record.files[name].sha256
    if found == wanted:
        return None
    differs = f"its sha256 is {found[:_SHORT]}, {record.action} wrote {wanted[:_SHORT]}"
    try:
        beside = json.loads(file.with_name(f"{file.name}.json").read_bytes())
        document, recorded = beside["document"], {fact["sha256"] for fact in beside["files"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"is of unknown origin: {differs}, and no record lies beside it"
    if found not in recorded:
        return f"is of unknown origin: {differs}, and the record beside it is of other bytes"
    theirs, ours = weights_of(document, store), weights_of(record.document, store)
    if theirs is None:
        return f"is of unknown origin: {differs}, and the store does not know what the record beside it was made from"
    if theirs != ours:
        mine = ours[:_SHORT] if ours else "unknown"
        return (
            f"was made from other weights: their inventory is {theirs[:_SHORT]}, this manifest's is {mine}; {differs}"
        )
    return f"is another build from the same weights: {differs}"
