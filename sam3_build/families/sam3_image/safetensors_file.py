"""A safetensors file in; where each tensor lies, the digest of its bytes, and single tensors out. Only ever reads."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.spec import Json

if TYPE_CHECKING:
    from torch import Tensor

# The types that hold trained weights, as safetensors and as numpy call them.
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

# Bytes of an element. A type that is not here holds no weights, and is refused where a weight has it.
WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}

BLOCK = 1 << 22


@dataclass(frozen=True)
class Stored:
    """A tensor of a file: its bytes lie from `start` to `end`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, Stored]:
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
        tensors = {
            k: _stored(path, k, e["dtype"], e["shape"], e["data_offsets"], 8 + length) for k, e in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{path.name} is not a safetensors file: its header cannot be read ({error})") from error
    missing = max((tensor.end for tensor in tensors.values()), default=0) - size
    if missing > 0:
        raise BuildError(f"{path.name} is cut short: it lacks the last {missing} bytes that its header lists")
    return tensors


def _stored(path: Path, key: str, dtype: str, shape: list[int], span: tuple[int, int], data: int) -> Stored:
    begin, end = span
    width = WIDTHS.get(dtype)
    wanted = None if width is None else width * math.prod(shape)
    if begin < 0 or end < begin or any(size < 0 for size in shape) or wanted not in (None, end - begin):
        needs = "" if wanted is None or wanted < 0 else f", which takes {wanted} bytes"
        raise BuildError(
            f"{path.name} is damaged: its header says that {key} is {dtype} {list(shape)}{needs}, and lies in bytes "
            f"{begin} to {end}; get the file again"
        )
    return Stored(path, dtype, tuple(shape), data + begin, data + end)


def entry(tensor: Stored) -> dict[str, Json]:
    """Return the inventory's line for a stored tensor; its digest is that of the bytes as they lie in the file."""
    sha = hashlib.sha256()
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        for start in range(tensor.start, tensor.end, BLOCK):
            sha.update(file.read(min(BLOCK, tensor.end - start)))
    return _line(tensor, sha.hexdigest())


def read(key: str, tensor: Stored) -> tuple[Tensor, dict[str, Json]]:
    """Return the tensor as FP32, and the inventory's line for the very bytes that were read."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(tensor.file, framework="pt") as file:
            found: Tensor = file.get_tensor(key)
    except SafetensorError as error:  # what it refuses of a file as a whole: holes, overlaps, bytes left over
        raise BuildError(f"{tensor.file.name} is damaged: {error}; get the file again") from error
    digest = hashlib.sha256(found.contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()
    return found.to(torch.float32), _line(tensor, digest)


def _line(tensor: Stored, digest: str) -> dict[str, Json]:
    return {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "digest": digest}
