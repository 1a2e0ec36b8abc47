"""Reads a checkpoint of any format that a family's tables know; returns its tensors by our modules' names."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.family_code import Format, KeyTables
from sam3_build.spec import Json
from sam3_build.weights import key_map, safetensors_file, torch_file, wrapped_names
from sam3_build.weights.files import INDEX_SUFFIX, SAFETENSORS_SUFFIX, TORCH_SUFFIXES
from sam3_build.weights.tensors import FileTensor, StateDict

StateDicts = Mapping[str, StateDict]

# Each returns the state dicts of a file by name; a safetensors file is one, which has none.
READERS: Mapping[str, Callable[[Path], StateDicts]] = {
    SAFETENSORS_SUFFIX: lambda path: {torch_file.BARE: StateDict(safetensors_file.read_header(path))},
    INDEX_SUFFIX: lambda path: {torch_file.BARE: StateDict(safetensors_file.read_index(path))},
    **dict.fromkeys(TORCH_SUFFIXES, torch_file.read_header),
}

# What a download leaves that is no checkpoint: the first bytes, what they are, and what to do.
NOT_CHECKPOINTS = (
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself; run `git lfs pull` where it was cloned"),
    (b"<!doctype html", "a web page, not a checkpoint; download the file itself, logged in if the site asks for it"),
    (b"<html", "a web page, not a checkpoint; download the file itself, logged in if the site asks for it"),
    (b"{", "JSON, probably a server's refusal, and not a checkpoint; look into it, and download the file again"),
)


@dataclass(frozen=True)
class CheckpointTensors:
    """A file's tensors by our modules' names, and how it was understood.

    keys:       our name -> the file's own, in which what was left out and what is unknown is spelled, too
    left_out:   a name that no module of ours has -> what it is
    state_dict: the name of the one that was taken, empty where it has none; `others` are those that were not
    entries:    what stood among its tensors and is none, `num_batches (int)`
    prefix:     what stood in front of all names; `wrappers`, what stood inside some
    """

    format: Format
    tensors: Mapping[str, FileTensor]
    keys: Mapping[str, str]
    left_out: Mapping[str, str]
    unknown: tuple[str, ...]
    state_dict: str
    others: tuple[str, ...]
    entries: tuple[str, ...]
    prefix: str
    wrappers: tuple[str, ...]

    @property
    def tables(self) -> dict[str, int]:
        """How many tensors were left out because every build computes them, by name; `*` stands for numbers in it."""
        names = (re.sub(r"\d+", "*", key) for key, what in self.left_out.items() if what == key_map.COMPUTED)
        return dict(Counter(names))

    @property
    def left_out_parts(self) -> dict[str, int]:
        """How many tensors were left out beside such tables, by what they are."""
        return dict(Counter(what for what in self.left_out.values() if what != key_map.COMPUTED))

    def facts(self) -> dict[str, Json]:
        """Return how the file was understood; what was nothing out of the ordinary is left out."""
        facts: dict[str, Json] = {
            "state_dict": self.state_dict,
            "other_state_dicts": list(self.others),
            "prefix": self.prefix,
            "wrappers": list(self.wrappers),
            "no_tensors": list(self.entries),
            "computed_tables": self.tables,
            "left_out_parts": self.left_out_parts,
        }
        return {"format": self.format.title, **{name: value for name, value in facts.items() if value}}

    def log(self, file: str) -> None:
        """Say the same in sentences."""
        logger = logging.getLogger(__name__)
        if self.others:
            others = ", ".join(map(repr, self.others))
            chooses = "`weights:` beside `path:` in the manifest chooses"
            logger.info("%s: took the state dict %r, and not %s; %s", file, self.state_dict, others, chooses)
        elif self.state_dict not in torch_file.USUAL_NAMES:
            logger.info("%s: took the state dict %r", file, self.state_dict)
        if self.prefix:
            logger.info("%s: names begin with %r, which was taken off", file, self.prefix)
        if self.wrappers:
            logger.info("%s: names hold %s, which was taken out", file, ", ".join(map(repr, self.wrappers)))
        if self.entries:
            logger.info("%s: left out what is no tensor: %s", file, torch_file.shortened(self.entries))
        if self.tables:
            names = torch_file.shortened(f"{name} ({count})" for name, count in self.tables.items())
            logger.info("%s: left out %s: %s", file, key_map.COMPUTED, names)
        for what, count in self.left_out_parts.items():
            logger.info("%s: left out %d tensors: %s", file, count, what)


def read(path: Path, tables: KeyTables, state_dict: str | None = None) -> CheckpointTensors:
    """Return the tensors of a checkpoint, and say how it was understood.

    state_dict: the one to take of a file that holds several; None for the usual one
    BuildError when it cannot be read, or is that of another model.
    """
    dicts = read_state_dicts(path)
    return by_our_names(path, dicts, torch_file.choose(path.name, dicts, state_dict), tables)


def read_each(path: Path, tables: KeyTables) -> Iterator[CheckpointTensors]:
    """Yield the tensors of each state dict of a file that holds a model of this family, the usual one first."""
    dicts = read_state_dicts(path)
    names = [name for name, state_dict in dicts.items() if state_dict.is_usable]
    for name in sorted(names, key=lambda name: name not in torch_file.USUAL_NAMES):
        try:
            yield by_our_names(path, dicts, name, tables)
        except BuildError:
            continue


def read_state_dicts(path: Path) -> StateDicts:
    """Return where each tensor of a file, or of all files of an index, lies, by state dict and the file's own keys."""
    reader = next((reader for suffix, reader in READERS.items() if path.name.endswith(suffix)), None)
    if reader is None:
        raise BuildError(f"{path.name} is not named as a checkpoint file; known endings are {', '.join(READERS)}")
    with path.open("rb") as file:
        start = file.read(64)
    # Of a safetensors file, the ninth byte is the first of its header; an index is JSON.
    other_content = [
        what for begin, what in NOT_CHECKPOINTS if start.lstrip().lower().startswith(begin) and start[8:9] != b"{"
    ]
    if other_content and not path.name.endswith(INDEX_SUFFIX):
        raise BuildError(f"{path.name} is {other_content[0]}")
    return reader(path)


def by_our_names(path: Path, dicts: StateDicts, name: str, tables: KeyTables) -> CheckpointTensors:
    """Return the tensors of one state dict of a file. BuildError when they are those of another model."""
    stored, others = dicts[name].tensors, key_map.others(tables)
    file = f"{path.name}, {name!r}," if len(dicts) > 1 else path.name
    expected = f"expected is {tables.model}, as {', '.join(form.title for form in tables.formats)}"
    try:
        names = wrapped_names.unwrap(stored, lambda key: key_map.is_known(key, tables), others)
    except BuildError as error:
        raise BuildError(f"{file} {error}") from error
    form = key_map.recognise(names.own, tables)
    spellings = [[*names.own, *names.outside], *(() if form else wrapped_names.shortened(stored, others))]
    if other := next(filter(None, (key_map.other_model(spelling, tables) for spelling in spellings)), None):
        raise BuildError(f"{file} holds {other}, by the names of its tensors ({_sample(stored)}); {expected}")
    if form is None:
        raise BuildError(f"{file} holds no tensor of {tables.model}: its names are {_sample(stored)}; {expected}")
    renamed = key_map.rename({short: stored[key] for short, key in names.own.items()}, form, tables.tied)
    computed = [key for key in names.outside if wrapped_names.is_computed(key)]
    return CheckpointTensors(
        format=form,
        tensors=renamed.tensors,
        keys={ours: names.own[short] for ours, short in renamed.keys.items()},
        left_out={
            **{names.own[short]: what for short, what in renamed.left_out.items()},
            **dict.fromkeys(computed, key_map.COMPUTED),
        },
        unknown=(*(names.own[short] for short in renamed.unknown), *(k for k in names.outside if k not in computed)),
        state_dict=name,
        others=tuple(other for other in dicts if other != name and dicts[other].is_usable),
        entries=tuple(dicts[name].other_entries),
        prefix=names.prefix,
        wrappers=names.wrappers,
    )


def _sample(keys: Collection[str]) -> str:
    """Return the first parts of the names, so that a reader sees which model it is."""
    roots = list(dict.fromkeys(".".join(key.split(".")[:2]) for key in keys))
    more = f" and {len(roots) - 6} more" if len(roots) > 6 else ""
    return f"{', '.join(f'{root}.*' for root in roots[:6])}{more}" if roots else "none at all"
