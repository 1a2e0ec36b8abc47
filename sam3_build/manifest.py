"""A manifest's name or path in, a frozen Manifest out, or one ManifestError that lists all that is wrong with it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sam3_build.errors import ManifestError
from sam3_build.manifest_checks import NAME, check
from sam3_build.manifest_extends import Source, read
from sam3_build.manifest_file import Box, ManifestFile, parse
from sam3_build.manifest_report import Report, missing_file, unknown
from sam3_build.spec import Json
from sam3_build.yaml_source import Problem, shown


@dataclass(frozen=True)
class RandomWeights:
    """Weights drawn from a seed, for a model of this config."""

    seed: int
    config: Path


@dataclass(frozen=True)
class Checkpoint:
    """Where weights come from: exactly one of `random` and `path` is set; `config` only stands beside `path`."""

    random: RandomWeights | None
    path: Path | None
    config: Path | None


@dataclass(frozen=True)
class PrecisionOptions:
    """What a component adds to a precision: `fnmatch` patterns on node names that stay FP32."""

    keep_fp32: tuple[str, ...]


@dataclass(frozen=True)
class Component:
    """A component to build; `opset` None means the manifest's."""

    opset: int | None
    patches: tuple[str, ...]
    precisions: Mapping[str, PrecisionOptions]


@dataclass(frozen=True)
class Target:
    """What to build for: a backend, the profiles of its engines, and its options as JSON, defaults filled in."""

    backend: str
    shape_profiles: tuple[str, ...]
    options: Mapping[str, Json]


@dataclass(frozen=True)
class Sample:
    """A picture and a prompt: text, boxes or both."""

    image: Path
    text: str | None
    boxes: tuple[Box, ...]


Tolerances = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float | tuple[float, float]]]]]


@dataclass(frozen=True)
class Manifest:
    """A checked manifest: every name in it exists, every file is there, every path is ready to open.

    shape_profiles: profile -> dim -> (min, opt, max);
    tolerances: precision -> component -> output -> metric -> threshold or (low, high); files: the YAML files read.
    """

    name: str
    path: Path
    family: str
    checkpoint: Checkpoint
    reference: str
    tokenizer: Path
    opset: int
    components: Mapping[str, Component]
    shape_profiles: Mapping[str, Mapping[str, tuple[int, int, int]]]
    precisions: tuple[str, ...]
    targets: Mapping[str, Target]
    samples: tuple[Sample, ...]
    tolerances: Tolerances
    files: tuple[Path, ...]


def load(name_or_path: str, root: Path) -> Manifest:
    """Return the manifest `root/manifests/<name>.yaml`, or the one at a path (it has a suffix or a separator).

    ManifestError lists every problem as `file:line: path: what is wrong, what is allowed, did you mean`.
    """
    path = _find(name_or_path, root)
    source = read(path)
    if source.root is None:
        raise ManifestError(map(_line, source.problems))
    report = Report(source.root, source.files, source.problems)
    file = parse(source.root, report)
    if not re.fullmatch(NAME, path.stem):
        report.add((), f"a manifest's file name must match {NAME}, found {path.stem!r}")
    options = check(file, report)
    if problems := report.sorted():
        raise ManifestError(map(_line, problems))
    return _manifest(file, path, source, options)


def write_schema(path: Path) -> None:
    """Write the JSON Schema of manifests, for editors, to `path`."""
    from sam3_build.manifest_schema import json_schema

    path.write_text(json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _find(name_or_path: str, root: Path) -> Path:
    folder = root / "manifests"
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path or os.sep in name_or_path:
        path = Path.cwd() / name_or_path
        if path.is_file():
            return path
        raise ManifestError([f"{_relative(path)}: {missing_file(path, '*.y*ml')}"])
    path = folder / f"{name_or_path}.yaml"
    if path.is_file():
        return path
    names = [p.stem for p in folder.glob("*.yaml")]
    raise ManifestError([f"{_relative(path)}: {unknown('manifest', name_or_path, names)}"])


def _manifest(file: ManifestFile, path: Path, source: Source, options: Mapping[str, Mapping[str, Json]]) -> Manifest:
    root = source.root
    assert root is not None
    random = file.checkpoint.random
    return Manifest(
        name=path.stem,
        path=path,
        family=file.family,
        checkpoint=Checkpoint(
            random=RandomWeights(random.seed, root.path(("checkpoint", "random", "config"))) if random else None,
            path=root.path(("checkpoint", "path")) if file.checkpoint.path else None,
            config=root.path(("checkpoint", "config")) if file.checkpoint.config else None,
        ),
        reference=file.reference,
        tokenizer=root.path(("tokenizer",)),
        opset=file.opset,
        components={
            name: Component(c.opset, c.patches, {p: PrecisionOptions(o.keep_fp32) for p, o in c.precisions.items()})
            for name, c in file.components.items()
        },
        shape_profiles=file.shape_profiles,
        precisions=file.precisions,
        targets={
            name: Target(t.backend, t.shape_profiles or tuple(file.shape_profiles), options[name])
            for name, t in file.targets.items()
        },
        samples=tuple(
            Sample(root.path(("samples", i, "image")), s.text, s.boxes or ()) for i, s in enumerate(file.samples)
        ),
        tolerances=file.tolerances,
        files=source.files,
    )


def _line(problem: Problem) -> str:
    where = _relative(problem.place.file) + (f":{problem.place.line}" if problem.place.line else "")
    return ": ".join(filter(None, (where, shown(problem.keys), problem.text)))


def _relative(path: Path) -> str:
    cwd = Path.cwd()
    return str(path.relative_to(cwd) if path.is_relative_to(cwd) else path)
