"""The metrics of tensors and of GEMM types, and which metrics a comparison has; those of a result are its kind's."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build import registry
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.plugins import Metric
from sam3_build.spec import Comparison


def _by_name(*metrics: Metric) -> Mapping[str, Metric]:
    return {metric.name: metric for metric in metrics}


# Every comparison has these, and no tolerance loosens them: NaN and Inf fail, and so does another shape or dtype.
SOUND = _by_name(
    Metric("nonfinite", "nonfinite", "values that are NaN or Inf"),
    Metric("incomparable", "incomparable", "cases with another shape or dtype"),
)

# Of an output (`compare/statistics`). Their default thresholds are the precision's.
TENSORS = _by_name(
    Metric(
        "max_abs_over_std",
        "max abs/std",
        "largest error, in standard deviations of the reference",
    ),
    Metric(
        "max_abs_over_range",
        "max abs/range",
        "largest error, as a share of the reference's range",
    ),
    Metric(
        "cosine",
        "cosine",
        "same direction, over all values at once",
        form=".5f",
        at_least=True,
        bounds=(0, 1),
    ),
    Metric("std_ratio", "std ratio", "same spread of values", form=".5f", is_pair=True),
    Metric("mismatches", "unequal", "values that are not equal"),
    Metric(
        "rows",
        "rows",
        "rows of a batch that depend on their place or their neighbours",
    ),
)

# Of a component's GEMMs (`graph/gemms`).
GEMMS = _by_name(
    Metric("gemms", "wrong GEMMs", "matrix products in another precision than was asked for", exact=0, reduced=0),
    Metric("low_gemms", "low GEMMs", "matrix products in reduced precision", at_least=True, reduced=1),
    Metric("low_share", "of weights", "share of their weights' bytes that is reduced", at_least=True, reduced=0.5),
)

OF_COMPONENTS = {**TENSORS, **GEMMS, **SOUND}


def metrics_of(comparison: Comparison) -> Mapping[str, Metric]:
    """Return the metrics of a comparison by name. A pipeline has those of its result, whatever others call theirs."""
    if comparison.result is None:
        return OF_COMPONENTS
    return {**_by_name(*registry.result(comparison.result).metrics), **SOUND}


def metric_of(comparison: Comparison, name: str) -> Metric:
    """Return a metric of a comparison. What a row without a gate has in its place is called by its own name."""
    return metrics_of(comparison).get(name) or Metric(name, name.replace("_", " "))


def of_tensors(name: str) -> Metric:
    """Return a metric of tensors. BuildError when there is none of this name."""
    known = {**TENSORS, **SOUND}
    if name not in known:
        raise BuildError(f"no metric of tensors is named {name!r}{did_you_mean(name, known)}")
    return known[name]
