"""Takes a built file; describes inputs, outputs, operators and weights of an ONNX file, or an engine's record.

Checkpoints are described by inspect_checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.commands.inspect_checkpoint import SUFFIXES, describe_checkpoint
from sam3_build.errors import BuildError
from sam3_build.graph.interface import interface
from sam3_build.spec import Json
from sam3_build.stages.build import as_json

if TYPE_CHECKING:
    from onnx import TensorProto


# What a precision action tells of its graph, in the order in which it is shown; what is zero or empty is left out.
FACTS = (
    *("low", "gemms", "low_gemms", "kept", "kept_by_schema", "kept_by_output", "kept_by_reader", "casts"),
    *("quantize_linear", "dequantize_linear", "cases", "clamped", "flushed", "weight_bytes_before", "weight_bytes"),
)


def describe(path: Path) -> dict[str, Json]:
    """Describe an `.onnx` or `.engine` file, or a checkpoint; BuildError when it is none, missing or unreadable."""
    readers = {".onnx": _onnx, ".engine": _engine, **dict.fromkeys(SUFFIXES, describe_checkpoint)}
    if path.is_dir():
        return describe_checkpoint(path)
    if path.suffix not in readers:
        kind = f"a {path.suffix} file" if path.suffix else "a file without suffix"
        raise BuildError(f"{path}: cannot inspect {kind}; known: {', '.join(readers)}, and a checkpoint's folder")
    if not path.is_file():
        raise BuildError(f"{path}: no such file; `sam3-build plan` shows what is built")
    return readers[path.suffix](path)


# ------------------------------------------------------------------ ONNX


def _onnx(path: Path) -> dict[str, Json]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise BuildError(f"{path}: not an ONNX file ({error})") from error
    graph = model.graph
    if not graph.output:
        raise BuildError(f"{path}: not an ONNX file (it holds no graph)")
    inputs, outputs = interface(graph)
    weights: Counter[str] = Counter()
    for tensor in graph.initializer:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        weights[dtype.name] += _bytes(tensor, dtype.itemsize)
    operators = Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in graph.node)
    return {
        "file": str(path),
        "kind": "onnx",
        "files": _files(path, graph.initializer),
        "ir_version": model.ir_version,
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "inputs": [as_json(tensor) for tensor in inputs],
        "outputs": [as_json(tensor) for tensor in outputs],
        "nodes": len(graph.node),
        "operators": {name: operators[name] for name in sorted(operators, key=lambda name: (-operators[name], name))},
        "initialisers": len(graph.initializer),
        "weights": {dtype: weights[dtype] for dtype in sorted(weights)},
        **_precision(path),
    }


def _precision(path: Path) -> dict[str, Json]:
    """Return what the sidecar of a precision's graph tells: what is low, what stayed FP32 and why, and what it cost."""
    try:
        record = json.loads(path.with_name(f"{path.name}.json").read_bytes())
        facts, recorded = record["facts"], record["files"][path.name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if "low_gemms" not in facts:
        return {}
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != recorded:
            return {"problem": f"not the file that {path.name}.json records, so nothing tells how it was made"}
    return {"precision": {name: facts[name] for name in FACTS if facts.get(name)}}


def _files(path: Path, initialisers: Sequence[TensorProto]) -> dict[str, Json]:
    """Return file name -> bytes of the ONNX and of what its weights lie in; None for a file that is not there."""
    files: dict[str, Json] = {path.name: path.stat().st_size}
    for location in sorted({_external(tensor)["location"] for tensor in initialisers if tensor.external_data}):
        beside = path.with_name(location)
        files[location] = beside.stat().st_size if beside.is_file() else None
    return files


def _external(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _bytes(tensor: TensorProto, itemsize: int) -> int:
    """Return the bytes that a weight takes, wherever it lies."""
    if "length" in (external := _external(tensor)):
        return int(external["length"])
    return len(tensor.raw_data) or math.prod(tensor.dims) * itemsize


# ------------------------------------------------------------------ engines


def _engine(path: Path) -> dict[str, Json]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    found: dict[str, Json] = {"file": str(path), "kind": "engine", "size": path.stat().st_size, "sha256": sha256}
    sidecar = path.with_name(f"{path.name}.json")
    if not sidecar.is_file():
        return found | {
            "sidecar": None,
            "problem": f"no sidecar: {sidecar.name} is missing, so nothing tells what it is",
        }
    try:
        record = json.loads(sidecar.read_bytes())
        document, facts, key, action = record["document"], record["facts"], record["key"], record["action"]
        # The sidecar may stand beside a copy under another name: an engine's record holds one file.
        recorded = [file["sha256"] for file in record["files"].values()]
        params = document["params"]
        tools, device, profiles = document["tools"], document["device"], params["profiles"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{sidecar}: not the record of an engine ({type(error).__name__}: {error})") from error
    return found | {
        "sidecar": sidecar.name,
        "problem": None if sha256 in recorded else f"not the file that the sidecar records (sha256 {recorded})",
        "action": action,
        "key": key,
        "tools": tools,
        "device": device,
        "profiles": profiles,
        "inputs": facts.get("inputs"),
        "outputs": facts.get("outputs"),
        "provenance": record.get("provenance"),
    }


# ------------------------------------------------------------------ text


def render(description: Mapping[str, Json]) -> str:
    """Return a description as lines for people: scalars beside their names, tensors and counts below them."""
    lines: list[str] = []
    for name, value in description.items():
        title = name.replace("_", " ")
        if isinstance(value, Mapping):
            width = max(map(len, value), default=0)
            lines += [f"{title}:", *(f"  {key:<{width}}  {_text(item)}" for key, item in value.items())]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            lines += [f"{title}:", *(f"  {line}" for line in _listed(value))]
        elif value is not None:
            lines.append(f"{title}: {_text(value)}")
    return "\n".join(lines) + "\n"


def _listed(values: Sequence[Json]) -> list[str]:
    """Return a line for each value: of tensors name and type, of rows of a table its columns."""
    rows = [value for value in values if isinstance(value, Mapping)]
    if not rows or len(rows) != len(values):
        return [_text(value) for value in values]
    if all("dtype" in row for row in rows):
        return _columns([[str(row["name"]), f"{row['dtype']}{_text(row['dims'])}"] for row in rows])
    is_table = all(isinstance(cell, str | int) for row in rows for cell in row.values())
    if not is_table or len({tuple(row) for row in rows}) > 1:
        return [_text(row) for row in rows]
    return _columns([[str(key) for key in rows[0]], *([_text(value) for value in row.values()] for row in rows)])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _text(value: Json) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_text(item) for item in value)}]"
    return "missing" if value is None else str(value)
