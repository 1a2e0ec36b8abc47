"""A tensor that lies in a file: slices of it, the digest of its bytes, and the tensor itself. Only ever reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.spec import Json
from sam3_build.weights.finite import Count, count

if TYPE_CHECKING:
    from torch import Tensor

# The types that hold trained weights, as safetensors and as numpy call them.
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

# Bytes of an element. A type that is not here holds no weights, and is refused where a weight has it.
WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}

BLOCK = 1 << 22


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a file: its first element lies at byte `offset`, and `strides` count elements, as torch's do."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes from the first element to the end of the last."""
        if 0 in self.shape:
            return 0
        return (sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)) + 1) * self.width

    @property
    def width(self) -> int:
        """Bytes of an element; 0 for a type that holds no weights."""
        return WIDTHS.get(self.dtype, 0)

    @property
    def is_contiguous(self) -> bool:
        """Whether its bytes lie in the file as they do in a tensor."""
        wanted = contiguous(self.shape)
        return all(n == 1 or s == w for n, s, w in zip(self.shape, self.strides, wanted, strict=True))

    def narrow(self, axis: int, start: int, length: int) -> FileTensor:
        """Return `length` slices from `start` on, along `axis`."""
        shape = (*self.shape[:axis], length, *self.shape[axis + 1 :])
        return replace(self, shape=shape, offset=self.offset + start * self.strides[axis] * self.width)

    def transposed(self) -> FileTensor:
        """Return the tensor with its dims in reverse."""
        return replace(self, shape=self.shape[::-1], strides=self.strides[::-1])


@dataclass(frozen=True)
class StateDict:
    """The tensors of a file that stand under one name. `others` are the entries beside them: key -> type of its value.

    Training code leaves numbers, None and small objects among the weights; a dict that is mostly such is none.
    """

    tensors: Mapping[str, FileTensor]
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_usable(self) -> bool:
        """Whether most of its entries are tensors."""
        return len(self.tensors) > len(self.others)

    @property
    def other_entries(self) -> list[str]:
        """The entries that are no tensors, for people: `num_batches (int)`."""
        return [f"{key} ({kind})" for key, kind in self.others.items()]


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a tensor of this shape whose elements lie in order."""
    return tuple(accumulate(shape[:0:-1], lambda size, n: size * n, initial=1))[::-1] if shape else ()


def inventory_line(tensor: FileTensor) -> dict[str, Json]:
    """Return the inventory's line for a stored tensor; its digest is that of its bytes, elements in order.

    `{"dtype", "shape", "digest"}`, and the numbers of `nan` and `inf` elements where there are any.
    """
    if not tensor.is_contiguous:
        return read_tensor(tensor)[1]
    sha, special = hashlib.sha256(), Count()
    for block in _blocks(tensor):
        sha.update(block)
        special += count(tensor.dtype, block)
    return _line(tensor, sha.hexdigest(), special)


def count_not_finite(tensor: FileTensor) -> Count:
    """Return how many elements of a stored tensor are NaN and how many infinite; none of a type that cannot be."""
    total = Count()
    for block in _blocks(tensor):
        total += count(tensor.dtype, block)
    return total


def read_tensor(tensor: FileTensor) -> tuple[Tensor, dict[str, Json]]:
    """Return the tensor as FP32, and the inventory's line for the very bytes that were read."""
    import torch

    content = bytearray(tensor.size)
    with tensor.file.open("rb") as file:
        file.seek(tensor.offset)
        if file.readinto(content) < len(content):
            raise _cut_short(tensor)
    flat = torch.frombuffer(content, dtype=getattr(torch, DTYPES[tensor.dtype])) if content else torch.empty(0)
    elements = flat.as_strided(tensor.shape, tensor.strides).contiguous()
    raw = elements.flatten().view(torch.uint8).numpy().data
    line = _line(tensor, hashlib.sha256(raw).hexdigest(), count(tensor.dtype, raw))
    return elements.to(torch.float32), line


def _blocks(tensor: FileTensor) -> Iterator[bytes]:
    left = tensor.size
    with tensor.file.open("rb") as file:
        file.seek(tensor.offset)
        while left:
            block = file.read(min(BLOCK, left))
            if len(block) < min(BLOCK, left):
                raise _cut_short(tensor)
            left -= len(block)
            yield block


def _cut_short(tensor: FileTensor) -> BuildError:
    return BuildError(f"{tensor.file.name} was cut short while it was read; get the file again")


def _line(tensor: FileTensor, digest: str, special: Count) -> dict[str, Json]:
    return {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "digest": digest, **special.as_json()}
