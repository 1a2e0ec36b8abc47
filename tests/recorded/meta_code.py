"""What records of Meta's code share: importing it, building it at a miniature's sizes, and giving it our weights.

Import this before anything that imports torchvision, as transformers does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from sam3_build.weights import key_map


def _without_operators() -> torch.library.Library:
    """Let torchvision be imported beside a PyTorch for which its compiled operators were not built.

    What is returned takes the operators back when it is collected.
    """
    library = torch.library.Library("torchvision", "DEF")
    package = next(p for p in map(Path, sys.path) if (p / "torchvision").is_dir()) / "torchvision"
    text = "".join(file.read_text() for file in package.rglob("*.py"))
    for name in sorted({*re.findall(r'register_meta\("(\w+)"', text), *re.findall(r'"torchvision::(\w+)"', text)}):
        library.define(f"{name}(Tensor x) -> Tensor")
    return library


OPERATORS = _without_operators()


def resized(kind: Callable, **sizes) -> Callable:
    """Return what makes a `kind` with these arguments in the place of those that it is given."""
    return lambda *args, **given: kind(*args, **{**given, **sizes})


def fill(model: torch.nn.Module, code, own: dict[str, torch.Tensor], in_file: Callable[[str], str] = str) -> None:
    """Give Meta's model our weights, by the tables of a family; what these have no tensor for, it keeps.

    own:     our name -> tensor; all of them must find a place
    in_file: what Meta's checkpoint calls a tensor of the model
    """
    official = next(form for form in code.keys.formats if form.title.startswith("official"))
    state, taken = model.state_dict(), set()
    for key, tensor in state.items():
        name = key_map.translate(in_file(key), official.sections) or ""
        how = official.reshaped.get(name)
        names = (
            how.parts if how and how.parts else [name.replace("*", part) for part in "qkv"] if "*" in name else [name]
        )
        if not own.keys() >= set(names):
            continue
        value = torch.cat([own[one] for one in names])
        if how and how.skip:
            value = torch.cat([tensor.narrow(how.axis, 0, how.skip), value], dim=how.axis)
        state[key] = value
        taken |= set(names)
    model.load_state_dict(state)
    left = own.keys() - taken - code.keys.tied.keys()
    assert not left, f"Meta's model has no {sorted(left)[:5]}"
