"""What a target consists of: takes a manifest or an action's record, returns parts, items and the files of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam3_build import registry
from sam3_build.compare.dependencies import Judged
from sam3_build.manifest.types import Manifest
from sam3_build.spec import Action, Pipeline
from sam3_build.store.objects import Record
from sam3_build.store.view import shown_as


@dataclass(frozen=True)
class Item:
    """One component in one precision for a target.

    pipelines: labels of those that are published and run it
    source: the action whose files are published; `built` the one that built for the target, the same but for graphs
    graph:  the action that made the ONNX file
    own:   what compares exactly these files; `below`, what those comparisons depend on
    """

    component: str
    precision: str
    pipelines: tuple[str, ...]
    source: Action
    built: Action
    graph: Action
    own: Judged
    below: Judged

    @property
    def name(self) -> str:
        """Return what reasons call it: `decoder.fp16`."""
        return f"{self.component}.{self.precision}"

    @property
    def together(self) -> tuple[str, ...]:
        """Return what reasons call its pipelines in its precision: `pipeline.fp16`."""
        return tuple(f"{label}.{self.precision}" for label in self.pipelines)

    @property
    def names(self) -> tuple[str, ...]:
        """Return what the reasons that concern it are about: itself, and its pipelines in its precision."""
        return self.name, *self.together

    @property
    def is_graph(self) -> bool:
        """Whether an ONNX graph is what the target runs, and so what is published for it."""
        return self.source is not self.built


@dataclass(frozen=True)
class ShownFile:
    """A file as it is published: its name, the file of the object that it is, sha256 (hex) and bytes."""

    name: str
    source: str
    sha256: str
    size: int


def shown(item: Item, record: Record) -> tuple[ShownFile, ...]:
    """Return the files of an item's object that are published, the graph or engine first and then its external data."""
    names = sorted(record.files, key=lambda name: (name.endswith(".data"), name))
    paths = {name: path for name in names if (path := shown_as(item.source, name))}
    return tuple(
        ShownFile(Path(path).name, name, record.files[name].sha256, record.files[name].size)
        for name, path in paths.items()
    )


def pipelines_of(manifest: Manifest) -> tuple[Pipeline, ...]:
    """Return the pipelines of the layout that a target may have: with samples, or the only ones to run what is built.

    Another one that shares a component with these is one that the manifest does not ask for.
    """
    family, built = registry.family(manifest.family).laid_out(manifest.layout), set(manifest.components)
    sampled = {sample.pipeline for sample in manifest.samples}
    shown = {name for p in family.pipelines if p.name in sampled for name in p.components}
    return tuple(p for p in family.pipelines if built & set(p.components) - (set() if p.name in sampled else shown))


@dataclass(frozen=True)
class Part:
    """What is published of a target or withheld, whatever becomes of the rest: a pipeline in one precision."""

    pipeline: Pipeline
    precision: str


def parts_of(manifest: Manifest, target: str) -> tuple[Part, ...]:
    """Return the parts of a target: each pipeline in each of its precisions."""
    return tuple(Part(p, name) for p in pipelines_of(manifest) for name in manifest.targets[target].precisions)
