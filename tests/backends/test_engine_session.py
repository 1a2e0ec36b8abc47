"""Sessions of engines, without a GPU: a stub of the CUDA driver, compiled, and a stand-in for TensorRT's module.

Neither a real engine nor a real GPU is under test here: a library without a GPU loads no engine.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import fake_tensorrt as fake
import numpy as np
import pytest

from sam3_build.backends import _cuda, _engine_session, _engines
from sam3_build.backends._tensorrt import Library
from sam3_build.errors import BuildError
from sam3_build.plugins import RunRequest, Session
from sam3_build.spec import Json, TensorSpec

LIBRARY = Library("fake_tensorrt", "TensorRT", (), "")
SOURCE = Path(__file__).parents[1] / "driver_stub.c"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make the driver's stub with")
    found = tmp_path_factory.mktemp("stub") / "libstub.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(found), str(SOURCE)], check=True)
    return found


@pytest.fixture
def driver(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """The stub in the driver's place. What a test leaves on the GPU is an error of that test."""
    monkeypatch.setattr(_cuda, "LIBRARY", str(library))
    stub = ctypes.CDLL(str(library))
    before = stub.stub_live()
    yield stub
    assert stub.stub_live() == before, "memory, a stream or the context was not given back"


TENSORS = (
    ("x", "INPUT", "FLOAT", (-1, -1)),
    ("ids", "INPUT", "INT64", (-1,)),
    ("offset", "INPUT", "INT64", ()),
    ("sums", "OUTPUT", "FLOAT", (-1,)),
    ("more", "OUTPUT", "INT64", (-1,)),
)


def profile(rows: tuple[int, int], columns: tuple[int, int]) -> dict[str, Json]:
    (low, high), (narrow, wide) = rows, columns
    scalar: list[Json] = [[], [], []]
    return {"x": [[low, narrow], [low, narrow], [high, wide]], "ids": [[low], [low], [high]], "offset": scalar}


PROFILES = (profile((1, 4), (2, 8)), profile((1, 2), (9, 20)))


def opened(
    folder: Path, *faults: str, tensors: tuple[tuple[object, ...], ...] = TENSORS, on_device: bool = False
) -> AbstractContextManager[Session]:
    described = {"tensors": tensors, "profiles": PROFILES, "faults": faults}
    (folder / "toy.fp16.engine").write_text(json.dumps(described))
    return _engine_session.session(RunRequest(folder, folder, "toy.fp16", {}, on_device), LIBRARY)


def feed(rows: int, columns: int, seed: int = 0) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).standard_normal((columns, rows)).astype(np.float32).T
    return {"x": x, "ids": np.arange(rows), "offset": np.array(100)}


def holds(session: Session, arrays: dict[str, np.ndarray]) -> None:
    found = session.run(arrays)
    assert list(found) == ["sums", "more"]
    np.testing.assert_allclose(found["sums"], arrays["x"].sum(1), rtol=1e-5)
    assert found["more"].tolist() == (arrays["ids"] + arrays["offset"]).tolist()
    assert (found["sums"].dtype, found["more"].dtype) == (np.float32, np.int64)


def test_arrays_go_to_the_gpu_and_back(tmp_path: Path, driver: ctypes.CDLL) -> None:
    with opened(tmp_path) as session:
        assert dict(session.inputs) == {
            "x": TensorSpec("x", "float32", ("", "")),
            "ids": TensorSpec("ids", "int64", ("",)),
            "offset": TensorSpec("offset", "int64", ()),
        }
        arrays = feed(3, 5)
        assert not arrays["x"].flags.c_contiguous, "an array that lies in memory in another order is read in order"
        holds(session, arrays)


def test_the_first_profile_that_takes_the_shapes_is_active(tmp_path: Path, driver: ctypes.CDLL) -> None:
    with opened(tmp_path) as session:
        for rows, columns in ((4, 8), (2, 9), (1, 20), (1, 2)):
            holds(session, feed(rows, columns))
    assert fake.CONTEXTS[-1]._ran == [0, 1, 1, 0]


def test_a_hundred_runs_take_the_memory_and_the_context_of_the_largest(tmp_path: Path, driver: ctypes.CDLL) -> None:
    with opened(tmp_path) as session:
        holds(session, feed(2, 20))
        holds(session, feed(4, 8))
        contexts, before, held = len(fake.CONTEXTS), driver.stub_allocations(), driver.stub_live()
        for turn in range(100):
            holds(session, feed(1 + turn % 4, 2 + turn % 7, turn))
        assert (len(fake.CONTEXTS), driver.stub_allocations(), driver.stub_live()) == (contexts, before, held)


def test_what_a_run_gave_stays_as_it_is(tmp_path: Path, driver: ctypes.CDLL) -> None:
    with opened(tmp_path) as session:
        first = session.run(feed(3, 5))
        kept = first["sums"].copy()
        session.run(feed(3, 5, seed=1))
        assert np.array_equal(first["sums"], kept)


def test_outputs_that_stay_on_the_gpu_are_fed_to_another_session_without_a_copy(
    tmp_path: Path, driver: ctypes.CDLL
) -> None:
    arrays = feed(3, 5)
    with opened(tmp_path) as session:
        once = session.run(arrays)
        twice = session.run({**arrays, "ids": once["more"]})
    with opened(tmp_path, on_device=True) as first, opened(tmp_path) as second:
        before = driver.stub_downloaded()
        given = first.run(arrays)
        more = given["more"]
        assert (more.shape, more.dtype, more.ndim, more.nbytes) == ((3,), np.int64, 1, 24)
        assert driver.stub_downloaded() == before
        uploaded = driver.stub_uploaded()
        found = second.run({**arrays, "ids": more})
        assert driver.stub_uploaded() - uploaded == arrays["x"].nbytes + arrays["offset"].nbytes
        assert all(np.array_equal(found[name], twice[name]) for name in twice)
        first.run(feed(3, 5, seed=1))
        assert all(np.array_equal(np.asarray(given[name]), once[name]) for name in once), "a later run wrote to it"
        assert np.array_equal(np.concatenate([given["sums"], once["sums"]]), [*once["sums"]] * 2)
        with pytest.raises(BuildError, match=r"input 'ids' is float32\[3\], the model takes int64\[any\]"):
            second.run({**arrays, "ids": given["sums"]})


def test_one_row_on_the_gpu_is_repeated_there(tmp_path: Path, driver: ctypes.CDLL) -> None:
    with opened(tmp_path, on_device=True) as session:
        one, three = session.run(feed(1, 5))["more"], session.run(feed(3, 5))["more"]
        before = driver.stub_downloaded()
        repeated = np.repeat(one, 4, 0)
        assert not isinstance(repeated, np.ndarray) and driver.stub_downloaded() == before
        assert np.asarray(repeated).tolist() == [100] * 4
        assert np.repeat(three, 2, 0).tolist() == [100, 100, 101, 101, 102, 102]
        assert three.take([2, 0], 0).tolist() == [102, 100]


def test_memory_on_the_gpu_is_given_back_with_the_array_or_with_its_session(
    tmp_path: Path, driver: ctypes.CDLL
) -> None:
    with opened(tmp_path, on_device=True) as session:
        session.run(feed(2, 5))
        held = driver.stub_live()
        kept = session.run(feed(2, 5))
        assert driver.stub_live() == held + 2
        sums = kept["sums"]
        del kept
        gc.collect()
        assert driver.stub_live() == held + 1
    with pytest.raises(BuildError, match="lives no longer than the session that gave it"):
        np.asarray(sums)


def test_another_thread_than_the_one_that_opened_it_may_run_it(tmp_path: Path, driver: ctypes.CDLL) -> None:
    with opened(tmp_path) as session, ThreadPoolExecutor(1) as pool:
        pool.submit(holds, session, feed(3, 5)).result()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": None}, "toy.fp16.engine: input 'ids' is missing; the model takes x, ids, offset"),
        ({"idz": np.arange(3)}, "toy.fp16.engine: there is no input 'idz'; did you mean 'ids'?"),
        ({"x": np.ones((3, 5))}, "toy.fp16.engine: input 'x' is float64[3, 5], the model takes float32[any, any]"),
        ({"offset": np.arange(3)}, "toy.fp16.engine: input 'offset' is int64[3], the model takes int64[]"),
        (
            {"x": np.ones((3, 9), np.float32)},
            "toy.fp16.engine: x[1] is 9, and shape profile 1 takes 2 to 8; x[0] is 3, and shape profile 2 takes 1 to 2",
        ),
    ],
)
def test_arrays_that_do_not_suit_are_one_clear_error_and_the_session_goes_on(
    tmp_path: Path, driver: ctypes.CDLL, changes: dict[str, np.ndarray | None], message: str
) -> None:
    arrays = {name: array for name, array in {**feed(3, 5), **changes}.items() if array is not None}
    with opened(tmp_path) as session:
        with pytest.raises(BuildError) as error:
            session.run(arrays)
        assert str(error.value) == message
        holds(session, feed(3, 5))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no context", "TensorRT makes no context for it: no memory for the context"),
        ("ids decides shapes", "values of 'ids' decide shapes, and no session feeds such a tensor"),
        ("fails", "TensorRT cannot run it: IExecutionContext::enqueueV3: Error Code 1: myelin"),
        ("no change of profile", "TensorRT cannot change to shape profile 2: it did not say why"),
        ("sizes depend on values", "the shape of output 'sums' depends on values: no session runs it"),
    ],
)
def test_what_tensorrt_refuses_is_an_error_in_its_own_words(
    tmp_path: Path, driver: ctypes.CDLL, fault: str, message: str
) -> None:
    with pytest.raises(BuildError) as error, opened(tmp_path, fault) as session:
        session.run(feed(2, 9))
    assert str(error.value) == f"toy.fp16.engine: {message}"


def test_an_engine_that_is_not_loaded_quotes_the_errors_and_logs_the_rest_aside(
    tmp_path: Path, driver: ctypes.CDLL, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "toy.fp16.engine").write_text(json.dumps({"refused": "compute capability 8.9 expected, found 8.6"}))
    with caplog.at_level(logging.DEBUG), pytest.raises(BuildError) as error:
        _engine_session.session(RunRequest(tmp_path, tmp_path, "toy.fp16", {}), LIBRARY).__enter__()
    said = "compute capability 8.9 expected, found 8.6"
    assert str(error.value) == f"toy.fp16.engine: TensorRT cannot load it: {said}"
    assert {(r.levelname, r.getMessage()) for r in caplog.records} == {("WARNING", said), ("DEBUG", "a long story")}


def test_a_type_that_numpy_lacks_is_refused_when_it_is_opened(tmp_path: Path, driver: ctypes.CDLL) -> None:
    tensors = (("x", "INPUT", "BF16", (-1, -1)), *TENSORS[1:])
    with pytest.raises(BuildError, match="'x' is BF16, which no session takes or gives"):
        opened(tmp_path, tensors=tensors).__enter__()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"STUB_CUINIT": "100"}, "CUDA: cuInit says 'stub error' (100); does `nvidia-smi` work?"),
        ({"STUB_KERNEL": "700"}, "CUDA: cuStreamSynchronize says 'stub error' (700); does `nvidia-smi` work?"),
        ({"STUB_MEMORY": "71"}, "the GPU has no 1 MiB of memory left; end what else runs on it"),
    ],
)
def test_what_cuda_refuses_is_one_sentence(
    tmp_path: Path, driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], message: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BuildError) as error, opened(tmp_path) as session:
        session.run(feed(2, 9))
    assert str(error.value) == message


def test_a_machine_without_a_driver_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "LIBRARY", "libnone.so")
    with pytest.raises(BuildError, match="an engine needs an NVIDIA driver, and its library cannot be loaded"):
        opened(tmp_path).__enter__()


def test_a_closed_session_says_so(tmp_path: Path, driver: ctypes.CDLL) -> None:
    with opened(tmp_path) as session:
        holds(session, feed(1, 2))
    with pytest.raises(BuildError, match=r"toy\.fp16\.engine: its session is closed"):
        session.run(feed(1, 2))


def test_an_inspector_is_asked_for_json(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "toy.fp16.engine").write_text(json.dumps({"tensors": TENSORS, "profiles": PROFILES}))
    found = _engines.inspect_engine(RunRequest(tmp_path, tmp_path, "toy.fp16", {}), LIBRARY)
    assert found == {"Layers": [], "form": "JSON"}


def test_the_stand_in_has_nothing_that_the_installed_library_does_not_have() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    real = {fake.Runtime: trt.Runtime, fake.Engine: trt.ICudaEngine, fake.Context: trt.IExecutionContext}
    real |= {fake.Inspector: trt.EngineInspector, fake.ILogger: trt.ILogger}
    for stand_in, whole in real.items():
        public = {name for name in vars(stand_in) if not name.startswith("_")}
        assert public and [name for name in public if not hasattr(whole, name)] == [], stand_in
    for name in ("num_io_tensors", "num_optimization_profiles"):
        assert hasattr(trt.ICudaEngine, name)
    assert hasattr(trt.IExecutionContext, "active_optimization_profile")
    assert {kind.name for kind in fake.DataType} <= {*trt.DataType.__members__}
    assert {*_engine_session._DTYPES} <= {*trt.DataType.__members__}
    assert {"INPUT", "OUTPUT"} <= {*trt.TensorIOMode.__members__}
    assert trt.LayerInformationFormat.JSON and callable(trt.init_libnvinfer_plugins)


def test_the_installed_librarys_logger_is_heard_in_python(tmp_path: Path) -> None:
    """Junk is refused with and without a GPU; what the library says of it is in the error."""
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "toy.engine").write_bytes(b"junk" * 100)
    with pytest.raises(BuildError, match=r"(?s)toy\.engine: TensorRT-RTX cannot load it: .*Error Code"):
        _engines.LoadedEngine(tmp_path / "toy.engine", Library("tensorrt_rtx", "TensorRT-RTX", (), ""))
