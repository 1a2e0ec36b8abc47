"""Takes a manifest's name or path, returns a frozen Manifest, or raises one ManifestError that lists every problem."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sam3_build import registry
from sam3_build.errors import ManifestError, shown
from sam3_build.manifest.checkpoints import checkpoint_of, tokenizer_of
from sam3_build.manifest.checks import Options, check
from sam3_build.manifest.extends import Source, read
from sam3_build.manifest.fit import fit
from sam3_build.manifest.lock import SUFFIX, is_lock, manifest_files
from sam3_build.manifest.lock_file import LockFile, read_lock
from sam3_build.manifest.paths import expanded
from sam3_build.manifest.problems import Report, kind, no_file, unknown
from sam3_build.manifest.rules import NAME
from sam3_build.manifest.sample_checks import samples_of
from sam3_build.manifest.shape import SCORE_THRESHOLD, ManifestFile, parse
from sam3_build.manifest.types import (
    Component,
    Manifest,
    PrecisionOptions,
    Target,
)
from sam3_build.manifest.yaml_tree import Keys, Problem


def load(name_or_path: str, root: Path) -> Manifest:
    """Return the manifest `root/manifests/<name>.yaml`, or the one at a path (it has a suffix or a separator).

    ManifestError lists every problem as `file:line: path: what is wrong, what is allowed, did you mean`.
    """
    path = _find(name_or_path, root)
    source = read(path)
    if source.root is None:
        raise ManifestError(map(line, source.problems))
    report = Report(source.root, [file.path for file in source.files], source.problems)
    file = parse(source.root, report)
    if not re.fullmatch(NAME, path.stem):
        report.add((), f"a manifest's file name must match {NAME}, found {path.stem!r}")
    options = check(file, report)
    lock = read_lock(path, file.components, file.precisions)
    if problems := [*report.sorted(), *lock.problems]:
        raise ManifestError(map(line, problems))
    return _with_fit(_manifest(file, path, source, options, lock), report, [*source.notes, *lock.notes])


def _with_fit(manifest: Manifest, report: Report, notes: Iterable[Problem]) -> Manifest:
    """Return the manifest with its `notes`, and what follows from how its samples fit its profiles."""
    found = fit(manifest)
    layout = registry.family(manifest.family).layouts[manifest.layout]
    if layout.note:
        keys: Keys = ("layout",)
        notes = (*notes, Problem(report.root.value_place(keys), keys, f"{manifest.layout}: {layout.note}"))
    places = {misfit: report.root.value_place(misfit.keys) for misfit in found.misfits}
    lines = {misfit: line(Problem(places[misfit], misfit.keys, misfit.text)) for misfit in found.misfits}
    if errors := [text for misfit, text in lines.items() if misfit.is_error]:
        raise ManifestError(errors)
    files = (*manifest.files, *([found.config] if found.config else []))
    return replace(manifest, padding=found.padding, notes=(*map(line, notes), *lines.values()), files=files)


def _find(name_or_path: str, root: Path) -> Path:
    folder = root / "manifests"
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path or os.sep in name_or_path:
        path = Path.cwd() / expanded(name_or_path)
        if is_lock(path):
            name = path.name.removesuffix(SUFFIX)
            raise ManifestError(
                [f"{_relative(path)}: is the lock of a manifest and no manifest; write manifest={name}"]
            )
        if kind(path) == "file":
            return path
        own = folder / f"{path.stem}.yaml"
        named = kind(path) is None and kind(own) == "file"
        wrong = (
            f"no such file {path.name!r} here; for {_relative(own)} write manifest={path.stem}"
            if named
            else no_file(path, name_or_path, "*.y*ml")
        )
        raise ManifestError([f"{_relative(path)}: {wrong}"])
    path = folder / f"{name_or_path}.yaml"
    if kind(path) == "file":
        return path
    names = [p.stem for p in manifest_files(folder)]
    raise ManifestError([f"{_relative(path)}: {unknown('manifest', name_or_path, names)}"])


def _manifest(file: ManifestFile, path: Path, source: Source, options: Options, lock: LockFile) -> Manifest:
    root, family = source.root, registry.family(file.family)
    assert root is not None
    layout = file.layout or family.layout
    return Manifest(
        name=path.stem,
        path=path,
        family=file.family,
        layout=layout,
        checkpoint=checkpoint_of(file.checkpoint, family, root),
        reference=file.reference,
        tokenizer=tokenizer_of(file, family.laid_out(layout), root),
        opset=file.opset,
        components={
            name: Component(
                c.opset,
                c.patches,
                {p: PrecisionOptions(o.keep_fp32, options.precisions[name, p]) for p, o in c.precisions.items()},
            )
            for name, c in file.components.items()
        },
        shape_profiles=file.shape_profiles,
        precisions=file.precisions,
        targets={
            name: Target(
                t.backend, file.profiles_of(t), options.targets[name], file.precisions_of(t), t.allow_unverified
            )
            for name, t in file.targets.items()
        },
        samples=samples_of(file, family.laid_out(layout), root),
        score_threshold=file.task.score_threshold if file.task else SCORE_THRESHOLD,
        tolerances=file.tolerances,
        files=(*source.files, *([lock.file] if lock.file else [])),
        locks=lock.locks,
        image_size=file.image_size,
    )


def line(problem: Problem) -> str:
    """Return `file:line: path: what is wrong`."""
    where = _relative(problem.place.file) + (f":{problem.place.line}" if problem.place.line else "")
    return ": ".join(filter(None, (where, shown(problem.keys), problem.text)))


def _relative(path: Path) -> str:
    cwd = Path.cwd()
    return str(path.relative_to(cwd) if path.is_relative_to(cwd) else path)
