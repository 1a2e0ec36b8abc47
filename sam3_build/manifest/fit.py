"""Takes a checked manifest, returns what of it does not fit the model, before anything is built.

That is a size of pictures that the network cannot take, and samples that fit no shape profile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from sam3_build import registry
from sam3_build.documents import value_of
from sam3_build.errors import BuildError
from sam3_build.manifest.types import Manifest, SourceFile
from sam3_build.manifest.yaml_tree import Keys
from sam3_build.pipeline import profiles
from sam3_build.spec import CaseRequest, CaseShape, Json, ModelFamily


class Misfit(NamedTuple):
    """What to say of a sample or a target, where it stands in the manifest, and whether nothing can be done with it."""

    keys: Keys
    text: str
    is_error: bool


class _Case(NamedTuple):
    """A case, and the components of its pipeline."""

    components: tuple[str, ...]
    shape: CaseShape


class Fit(NamedTuple):
    """How the manifest and the model go together; `config` is the model config that was read, where one was."""

    padding: int
    misfits: tuple[Misfit, ...]
    config: SourceFile | None


def fit(manifest: Manifest) -> Fit:
    """Return by how much batches are padded, and every sample and target of which a case fits no profile.

    A size of pictures that the network cannot take is an error; where there is no config yet, by the published model's.
    A target that takes none of the cases could never be verified: an error. Sizes that follow from a model config that
    is not downloaded yet are the published model's, and alone they make no error.
    """
    family = registry.family(manifest.family).laid_out(manifest.layout)
    config, file = _config(manifest)
    static = _static(family, config)
    by_padding = {padding: _cases(manifest, family, static, padding) for padding in (1, 0)}
    # One target alone may ask for less padding: the cases are the same for all.
    padding = 1
    targets = [name for name, target in manifest.targets.items() if registry.backend(target.backend).uses_profiles]
    for name in targets:
        wide, narrow = (
            sum(_misfit(manifest, family, case, name) is not None for case in by_padding[padding]) for padding in (1, 0)
        )
        if narrow < wide:
            padding = 0
    certain = _cases(manifest, family, {}, padding) if manifest.checkpoint.hub and not file else by_padding[padding]
    misfits = (
        *_unfit_size(manifest.image_size, family, config or {}),
        *_misfits(manifest, family, by_padding[padding], certain, targets),
    )
    return Fit(padding, misfits, file)


def _config(manifest: Manifest) -> tuple[Mapping[str, Json] | None, SourceFile | None]:
    """Return the model config and its file; None for one that is not here yet, and an empty one that cannot be read."""
    file = manifest.checkpoint.files.get("config")
    if file is None:
        return None, None
    try:
        data = file.read_bytes()
        config = json.loads(data)
    except (OSError, ValueError):
        return {}, None  # the checkpoint action says what is wrong with it
    return (config, SourceFile(file, hashlib.sha256(data).hexdigest())) if isinstance(config, dict) else ({}, None)


def _static(family: ModelFamily, config: Mapping[str, Json] | None) -> Mapping[str, int]:
    if config is None:
        return family.usual_static
    try:
        return family.static_dims(config)
    except (TypeError, AttributeError, ValueError, BuildError):
        return {}  # as above


def _unfit_size(size: tuple[int, int] | None, family: ModelFamily, config: Mapping[str, Json]) -> Iterator[Misfit]:
    if size is None or family.resized is None:  # which is a mistake that `checks` reports
        return
    try:
        family.resized(config, size)
    except BuildError as error:
        yield Misfit(("image_size",), str(error), True)


def _cases(manifest: Manifest, family: ModelFamily, static: Mapping[str, int], padding: int) -> tuple[_Case, ...]:
    """Return the cases of all pipelines; their samples are positions in the manifest."""
    cases = []
    for pipeline in family.pipelines:
        samples = {i: s.prompts for i, s in enumerate(manifest.samples) if s.pipeline == pipeline.name}
        numbers = tuple(samples)
        asked: list[object] = [value_of(pipeline.prompts, document) for document in samples.values()]
        request = CaseRequest(manifest.layout, pipeline.name, manifest.reference, asked, numbers, padding, static)
        for shape in family.cases(request) if samples else ():
            cases.append(_Case(pipeline.components, replace(shape, samples=tuple(numbers[i] for i in shape.samples))))
    return tuple(cases)


def _misfit(manifest: Manifest, family: ModelFamily, given: _Case, target: str) -> str | None:
    """Return why a component does not take a case of this shape, or None."""
    names, case = manifest.targets[target].shape_profiles, given.shape
    for spec in family.components:
        if spec.name in manifest.components and spec.name in given.components:
            own = spec.symbolic_dims
            taken = profiles.restricted((manifest.shape_profiles[name] for name in names), own)
            ranges = dict(zip(map(repr, names), taken, strict=True))
            sizes = {dim: size for dim, size in case.sizes.items() if dim in own}
            if why := profiles.misfit(ranges, sizes, family.row_dim(spec)):
                return why
    return None


def _misfits(
    manifest: Manifest,
    family: ModelFamily,
    cases: tuple[_Case, ...],
    certain: tuple[_Case, ...],
    targets: Sequence[str],
) -> Iterator[Misfit]:
    """Yield the samples that do not fit, each reason once for all its targets, then the targets that nothing fits.

    certain: the same cases, without sizes that are only assumed
    """
    samples: dict[tuple[int, str], list[str]] = {}
    for target in targets:
        found = [(case, why) for case in cases if (why := _misfit(manifest, family, case, target))]
        if found and len(found) == len(cases):
            nothing = "none of the samples fits its shape profiles, so that it could never be verified"
            advice = "widen the profile, or add a sample that fits"
            is_error = all(_misfit(manifest, family, case, target) for case in certain)
            yield Misfit(("targets", target), f"{nothing}: {found[0][1]}; {advice}", is_error)
            continue
        for case, why in found:
            if len(case.shape.samples) == 1:  # a batch has the sizes of its largest sample
                samples.setdefault((case.shape.samples[0], why), []).append(target)
    for (sample, why), unfit in samples.items():
        text = f"{why}: target {', '.join(unfit)} is built, and not compared on this sample"
        yield Misfit(("samples", sample), text, False)
