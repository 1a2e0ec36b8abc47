"""Finds the tensors of a safetensors file, or of all files of an index. Reads headers only."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.weights.files import weight_map
from sam3_build.weights.tensors import WIDTHS, FileTensor, contiguous


def read_header(path: Path) -> dict[str, FileTensor]:
    """Return every tensor of a file, by key."""
    # The length of the header (8 bytes, little endian), the header (JSON), then the tensors' bytes.
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise BuildError(f"{path.name} is not a safetensors file, or cut short: its header does not fit into it")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        spans = {key: (*e["data_offsets"],) for key, e in header.items()}
        tensors = {k: _stored(path, k, e["dtype"], e["shape"], spans[k], 8 + length) for k, e in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{path.name} is not a safetensors file: its header cannot be read ({error})") from error
    missing = max((8 + length + end for _, end in spans.values()), default=0) - size
    if missing > 0:
        raise BuildError(f"{path.name} is cut short: it lacks the last {missing} bytes that its header lists")
    _refuse_holes(path, spans)
    return tensors


def _stored(path: Path, key: str, dtype: str, shape: list[int], span: tuple[int, ...], data: int) -> FileTensor:
    begin, end = span
    width = WIDTHS.get(dtype)
    wanted = None if width is None else width * math.prod(shape)
    if begin < 0 or end < begin or any(size < 0 for size in shape) or wanted not in (None, end - begin):
        needs = "" if wanted is None or wanted < 0 else f", which takes {wanted} bytes"
        raise BuildError(
            f"{path.name} is damaged: its header says that {key} is {dtype} {list(shape)}{needs}, and lies in bytes "
            f"{begin} to {end}; get the file again"
        )
    return FileTensor(path, dtype, tuple(shape), data + begin, contiguous(tuple(shape)))


def _refuse_holes(path: Path, spans: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tensors that share bytes and bytes between them: the format has neither, so this header is no good."""
    reached = 0
    for key, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != reached:
            what = (
                "shares bytes with another tensor" if begin < reached else "lies behind bytes that belong to no tensor"
            )
            raise BuildError(f"{path.name} is damaged: {key} {what}; get the file again")
        reached = end


def read_index(path: Path) -> dict[str, FileTensor]:
    """Return every tensor of the files that an index (`model.safetensors.index.json`) names, by key.

    BuildError when index and files do not name the same tensors.
    """
    listed = weight_map(path)
    headers = {name: read_header(path.with_name(name)) for name in dict.fromkeys(listed.values())}
    absent = [f"{key} in {name}" for key, name in listed.items() if key not in headers[name]]
    extra = [f"{key} of {name}" for name, header in headers.items() for key in header if listed.get(key) != name]
    for what, keys in (("names tensors that are not there", absent), ("does not name all tensors", extra)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise BuildError(f"{path.name} {what}: {', '.join(keys[:3])}{more}; get index and files again, together")
    return {key: headers[name][key] for key, name in listed.items()}
