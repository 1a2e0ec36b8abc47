"""What a manifest says, checked against the families, backends, patches and files that exist; only reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sam3_build import registry
from sam3_build.compare.metrics import TENSORS
from sam3_build.manifest.checkpoints import check_checkpoint, check_tokenizer
from sam3_build.manifest.options import check_options
from sam3_build.manifest.problems import Report
from sam3_build.manifest.profiles import check_profiles
from sam3_build.manifest.rules import check_list, check_name, is_known, is_of_another_layout
from sam3_build.manifest.sample_checks import check_samples
from sam3_build.manifest.shape import ManifestFile, TargetFile
from sam3_build.manifest.yaml_tree import Keys
from sam3_build.plugins import Metric, ResultKind, Threshold
from sam3_build.spec import BASELINE, Json, Layout, ModelFamily


@dataclass(frozen=True)
class Options:
    """The options of each target, and of each (component, precision) that has any; defaults filled in."""

    targets: Mapping[str, Mapping[str, Json]]
    precisions: Mapping[tuple[str, str], Mapping[str, Json]]


def check(file: ManifestFile, report: Report) -> Options:
    """Report all that names something unknown, missing or impossible; return all options."""
    declared = _family(file, report)
    named = registry.family(file.family) if file.family in registry.names("families") else None  # in any layout
    check_checkpoint(file, named, report)
    check_tokenizer(file, declared or named, report)
    _not_empty(file, report)
    if file.image_size and named and named.resized is None:
        report.add_key(("image_size",), f"family {named.name!r} has one size of pictures; leave it out")
    check_list(("precisions",), "precision", file.precisions, registry.names("precisions"), report)
    precisions = _components(file, declared, report)
    targets = {name: _target(name, target, file, report) for name, target in file.targets.items()}
    check_profiles(file, declared, report)
    check_samples(file, declared, report)
    _tolerances(file, declared, report)
    return Options(targets, precisions)


# ------------------------------------------------------------------ parts


def _family(file: ManifestFile, report: Report) -> ModelFamily | None:
    """Return the family in the manifest's layout; None when nothing can be checked against it."""
    if not is_known(("family",), "family", file.family, registry.names("families"), report):
        return None
    family = registry.family(file.family)
    is_known(("reference",), "reference", file.reference, family.references, report)
    if report.is_broken(("layout",)):
        return None
    layout = file.layout or family.layout
    known = is_known(("layout",), "layout", layout, family.layouts, report, f" of family {family.name!r}")
    return family.laid_out(layout) if known else None


def _not_empty(file: ManifestFile, report: Report) -> None:
    for key in ("components", "precisions", "targets", "samples"):
        if not getattr(file, key):
            report.add((key,), "is empty; list at least one")


def _selected(file: ManifestFile, report: Report) -> tuple[str, ...]:
    """Return the selected precisions; none when one of them is not understood, and so may be any."""
    names = registry.names("precisions")
    sound = not report.is_broken(("precisions",)) and all(p in names for p in file.precisions)
    return file.precisions if sound else ()


def _components(
    file: ManifestFile, family: ModelFamily | None, report: Report
) -> dict[tuple[str, str], Mapping[str, Json]]:
    """Return the options of each component's precisions."""
    selected = _selected(file, report)
    found: dict[tuple[str, str], Mapping[str, Json]] = {}
    for name, component in file.components.items():
        keys: Keys = ("components", name)
        if family and not is_of_another_layout(keys, "component", family, _names, report):
            is_known(keys, "component", name, _names(family), report, f" of family {family.name!r}")
        check_list((*keys, "patches"), "patch", component.patches, registry.names("patches"), report)
        for precision, options in component.precisions.items():
            at = (*keys, "precisions", precision)
            known = is_known(at, "precision", precision, registry.names("precisions"), report)
            if known and selected and precision not in selected:
                names = ", ".join(selected)
                report.add_key(at, f"has options, but 'precisions' does not select it (selected: {names})")
            check_list((*at, "keep_fp32"), "pattern", options.keep_fp32, None, report)
            if known:
                kind, given = registry.precision(precision).options, options.model_extra or {}
                own = check_options(at, f"precision {precision!r}", kind, given, ("keep_fp32",), report)
                found[name, precision] = own or {}
    return found


def _names(layout: Layout | ModelFamily) -> list[str]:
    return [component.name for component in layout.components]


def _tolerances(file: ManifestFile, family: ModelFamily | None, report: Report) -> None:
    selected = _selected(file, report)
    for precision, components in file.tolerances.items():
        at: Keys = ("tolerances", precision)
        if selected:
            is_known(at, "precision", precision, {BASELINE, *selected}, report, " of this manifest")
        pipelines = family.pipelines if family else ()
        whole = {family.label(p.name): registry.result(p.result) for p in pipelines if family and p.result}
        for name, outputs in components.items():
            if name in whole:
                _result_tolerances((*at, name), whole[name], outputs, report)
                continue
            if report.is_broken(("components",)) and name not in file.components:
                continue
            if family and is_of_another_layout((*at, name), "component", family, _names, report):
                continue
            known = (*file.components, *whole)
            if not is_known((*at, name), "component", name, known, report, " of this manifest"):
                continue
            specs = [c for c in family.components if c.name == name] if family else []
            dtypes = {t.name: t.dtype for spec in specs for t in spec.outputs}
            for output, metrics in outputs.items():
                if not specs or not is_known((*at, name, output), "output", output, dtypes, report, f" of {name}"):
                    continue
                for metric, threshold in metrics.items():
                    _metric((*at, name, output, metric), dtypes[output], threshold, report)


def _result_tolerances(
    at: Keys, kind: ResultKind, outputs: Mapping[str, Mapping[str, Threshold]], report: Report
) -> None:
    declared = {metric.name: metric for metric in kind.metrics}
    for output, metrics in outputs.items():
        if is_known((*at, output), "output", output, (kind.output,), report, f" of {at[-1]}"):
            for name, threshold in metrics.items():
                keys = (*at, output, name)
                if is_known(keys, "metric", name, declared, report, f" of {kind.output}"):
                    _bounded(keys, threshold, declared[name], report)


def _metric(keys: Keys, dtype: str, threshold: Threshold, report: Report) -> None:
    name, exact = str(keys[-1]), not dtype.startswith(("float", "bfloat"))
    if name == "nonfinite":
        report.add_key(keys, "NaN and Inf always fail; leave this tolerance out")
    elif not is_known(keys, "metric", name, TENSORS, report):
        return
    elif name != "rows" and exact != (name == "mismatches"):
        how = "compared by equality: it takes only 'mismatches'" if exact else "never compared by equality"
        report.add_key(keys, f"{keys[-2]} is {dtype} and {how}")
    else:
        _bounded(keys, threshold, TENSORS[name], report)


def _bounded(keys: Keys, threshold: Threshold, metric: Metric, report: Report) -> None:
    """Report a threshold of the wrong kind, or one that every value passes or none."""
    if isinstance(threshold, tuple) != metric.is_pair:
        wanted = "a pair such as [0.98, 1.02]" if metric.is_pair else "one number"
        report.add(keys, f"{metric.name} takes {wanted}, found {json.dumps(threshold)}")
        return
    low, high = metric.bounds
    values = threshold if isinstance(threshold, tuple) else (threshold,)
    if any(v < low or (high is not None and v > high) for v in values):
        limits = f"at least {low}" + ("" if high is None else f" and at most {high}")
        report.add(keys, f"{metric.name} is {limits}, found {json.dumps(threshold)}")


# ------------------------------------------------------------------ targets


def _target(name: str, target: TargetFile, file: ManifestFile, report: Report) -> Mapping[str, Json]:
    keys: Keys = ("targets", name)
    check_name(keys, "target", name, report)
    picked = target.shape_profiles
    if picked is not None:
        known = {*file.shape_profiles, *(p for p in picked if report.is_broken(("shape_profiles", p)))}
        check_list((*keys, "shape_profiles"), "shape profile", picked, known, report)
        if not picked:
            report.add((*keys, "shape_profiles"), "is empty; leave it out to use all profiles")
    if target.precisions is not None:
        _target_precisions((*keys, "precisions"), target.precisions, file, report)
    if not is_known((*keys, "backend"), "backend", target.backend, registry.names("backends"), report):
        return {}
    backend = registry.backend(target.backend)
    if picked is not None and not backend.uses_profiles:
        report.add_key((*keys, "shape_profiles"), f"backend {backend.name!r} uses no shape profiles; leave it out")
    given = target.model_extra or {}
    base = ("backend", "shape_profiles", "precisions", "allow_unverified")
    options = check_options(keys, f"backend {backend.name!r}", backend.options, given, base, report)
    if options is None:
        return {}
    reasons = [
        backend.impossible(options, registry.precision(p))
        for p in file.precisions_of(target)
        if p in registry.names("precisions")
    ]
    for reason in dict.fromkeys(filter(None, reasons)):
        report.add(keys, reason)
    return options


def _target_precisions(keys: Keys, picked: tuple[str, ...], file: ManifestFile, report: Report) -> None:
    """Report what a target picks and the manifest does not select."""
    selected = _selected(file, report)
    for i, name in enumerate(picked):
        if selected and name in registry.names("precisions") and name not in selected:
            names = ", ".join(selected)
            report.add((*keys, i), f"{name!r} is none that 'precisions' selects (selected: {names}); add it there")
    check_list(keys, "precision", picked, registry.names("precisions"), report)
    if not picked:
        report.add(keys, "is empty; leave it out to build all precisions")
