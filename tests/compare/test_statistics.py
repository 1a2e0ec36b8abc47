from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from sam3_build.compare import statistics
from sam3_build.compare.statistics import OutputStatistics


def measured(*pairs: tuple[np.ndarray, np.ndarray]) -> OutputStatistics:
    found = OutputStatistics(pairs[0][1].dtype.name)
    for number, (actual, reference) in enumerate(pairs):
        found.add(f"case{number}", actual, reference)
    return found


def noisy_cases(offset: float = 0.0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    cases = []
    for shape in ((1, 3, 40, 41), (2, 3, 40, 41), (5,)):
        reference = (rng.standard_normal(shape) * 3 + offset).astype(np.float32)
        cases.append((reference + (rng.standard_normal(shape) * 0.01).astype(np.float32), reference))
    return cases


@pytest.mark.parametrize("offset", [0.0, 1e5])
@pytest.mark.parametrize("chunk", [7, 1000, 1 << 20])
def test_metrics_over_all_cases_equal_those_of_one_concatenated_array(
    monkeypatch: pytest.MonkeyPatch, chunk: int, offset: float
) -> None:
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    cases = noisy_cases(offset)
    a, r = (np.concatenate([case[i].ravel() for case in cases]).astype(np.float64) for i in (0, 1))
    largest = np.abs(a - r).max()
    expected = {
        "max_abs_over_std": largest / r.std(),
        "max_abs_over_range": largest / (r.max() - r.min()),
        "cosine": a @ r / np.linalg.norm(a) / np.linalg.norm(r),
        "std_ratio": a.std() / r.std(),
        "nonfinite": 0,
        "incomparable": 0,
    }
    found = measured(*cases)
    assert found.metrics() == pytest.approx(expected, rel=1e-9)
    assert found.summary()["elements"] == a.size
    assert found.summary()["cases"] == 3
    reference = found.summary()["reference"]
    assert reference == pytest.approx({"mean": r.mean(), "std": r.std(), "min": r.min(), "max": r.max()}, rel=1e-9)


def test_polygraphy_measures_the_same_on_one_case() -> None:
    from polygraphy.comparator import CosineSimilarityCompareFunc, IterationResult, SimpleCompareFunc

    actual, reference = noisy_cases()[0]
    results = [IterationResult(OrderedDict(y=array)) for array in (actual, reference)]
    simple = SimpleCompareFunc(check_error_stat="max")(*results)["y"]
    cosine = CosineSimilarityCompareFunc()(*results)["y"]
    found = measured((actual, reference))
    assert found.max_abs == pytest.approx(float(simple.max_absdiff), rel=1e-6)
    assert found.metrics()["cosine"] == pytest.approx(float(cosine.cosine_similarity), rel=1e-6)


def test_the_worst_element_is_named_by_case_and_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK", 5)
    reference = np.zeros((2, 3, 4), np.float32)
    first, second = reference.copy(), reference.copy()
    first[0, 1, 1], second[1, 2, 3] = 0.5, -2.0
    found = measured((first, reference), (second, reference), (first, reference))
    assert found.worst == {"case": "case1", "index": [1, 2, 3], "actual": -2.0, "reference": 0.0}


def test_bool_and_integer_outputs_are_compared_by_equality() -> None:
    reference = np.array([[True, False], [True, True]])
    found = measured((reference, reference), (np.array([[True, True], [False, True]]), reference))
    assert found.metrics() == {"mismatches": 2, "nonfinite": 0, "incomparable": 0}
    assert found.worst == {"case": "case1", "index": [0, 1], "actual": True, "reference": False}
    integers = np.arange(5)
    assert measured((integers, integers)).metrics()["mismatches"] == 0
    assert measured((integers + 2**53, integers + 2**53 + 1)).metrics()["mismatches"] == 5


def test_nan_and_inf_are_counted_on_both_sides_and_left_out_of_the_rest() -> None:
    reference = np.array([1, 2, 3, 4, np.inf], np.float32)
    actual = np.array([1, np.nan, 3, 5, 5], np.float32)
    found = measured((actual, reference))
    assert found.metrics()["nonfinite"] == 2
    assert (found.nonfinite, found.nonfinite_reference) == (1, 1)
    assert found.max_abs == 1.0
    assert found.metrics()["max_abs_over_range"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nothing_finite_means_not_measured(value: float) -> None:
    reference = np.ones(3, np.float32)
    found = measured((np.full(3, value, np.float32), reference))
    assert found.metrics() == {
        "max_abs_over_std": None,
        "max_abs_over_range": None,
        "cosine": None,
        "std_ratio": None,
        "nonfinite": 3,
        "incomparable": 0,
    }
    assert "NaN" not in json.dumps(found.summary(), allow_nan=False)


@pytest.mark.parametrize(("constant", "scale"), [(4.0, 4.0), (-4.0, 4.0), (0.0, 1.0)])
def test_a_constant_reference_is_scaled_by_its_magnitude(constant: float, scale: float) -> None:
    reference = np.full((3, 7), constant, np.float32)
    exact = measured((reference, reference)).metrics()
    assert (exact["max_abs_over_std"], exact["max_abs_over_range"]) == (0, 0)
    assert (exact["std_ratio"], exact["cosine"]) == (1, pytest.approx(1))
    actual = reference.copy()
    actual[1, 1] += 2
    noisy = measured((actual, reference)).metrics()
    assert noisy["max_abs_over_std"] == noisy["max_abs_over_range"] == pytest.approx(2 / scale)
    assert noisy["std_ratio"] == pytest.approx(1 + actual.astype(float).std() / scale)


def test_cosine_of_a_vanished_output_is_zero() -> None:
    reference = np.array([1, 2, 3], np.float32)
    assert measured((np.zeros(3, np.float32), reference)).metrics()["cosine"] == 0
    assert measured((-reference, reference)).metrics()["cosine"] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("actual", "problem"),
    [
        (np.zeros((2, 3), np.float16), "case 'case0' has float16[2, 3] where float32[2, 3] is expected"),
        (np.zeros((3, 2), np.float32), "case 'case0' has float32[3, 2] where float32[2, 3] is expected"),
        (np.zeros(6, np.float32), "case 'case0' has float32[6] where float32[2, 3] is expected"),
        (np.zeros((1, 2, 3), np.float32), "case 'case0' has float32[1, 2, 3] where float32[2, 3] is expected"),
    ],
)
def test_another_shape_or_dtype_is_a_problem_and_never_broadcast(actual: np.ndarray, problem: str) -> None:
    reference = np.zeros((2, 3), np.float32)
    found = measured((actual, reference), (reference, reference))
    assert found.problems == [problem]
    assert found.metrics()["incomparable"] == 1
    assert found.elements == 6


def test_a_dtype_that_changes_between_cases_is_a_problem() -> None:
    floats, halves = np.zeros(3, np.float32), np.zeros(3, np.float16)
    assert measured((floats, floats), (halves, halves)).metrics()["incomparable"] == 1


def test_outputs_without_elements_measure_nothing() -> None:
    for dtype in (np.float32, bool):
        empty = np.zeros((0, 4), dtype)
        metrics = measured((empty, empty)).metrics()
        assert {metrics[name] for name in metrics if name not in ("nonfinite", "incomparable")} == {None}


def test_a_large_tensor_costs_a_few_chunks_of_memory() -> None:
    import tracemalloc

    reference = np.ones((20, 1 << 20), np.float32)
    tracemalloc.start()
    measured((reference, reference))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * statistics.CHUNK * 8, f"peak {peak / 2**20:.0f} MiB for {reference.nbytes / 2**20:.0f} MiB"


def test_the_module_documents_every_metric() -> None:
    text = Path(statistics.__file__).read_text().split('"""')[1]
    floats = measured((np.ones(2, np.float32), np.ones(2, np.float32))).metrics()
    assert all(f"\n    {metric} " in text for metric in {*floats, "mismatches"})


def test_one_number_computed_in_two_batch_sizes_has_the_scale_of_a_constant() -> None:
    reference = np.array([0.107626, 0.10762601], np.float32)
    found = OutputStatistics("float32")
    found.add("single", reference + np.float32(1e-7), reference)
    metrics = found.metrics()
    assert metrics["max_abs_over_std"] == pytest.approx(1e-7 / 0.107626, rel=0.2)
    assert metrics["std_ratio"] == pytest.approx(1, abs=1e-5)
    wrong = OutputStatistics("float32")
    wrong.add("single", reference * np.float32(1.1), reference)
    assert wrong.metrics()["max_abs_over_std"] == pytest.approx(0.1, rel=0.01)
