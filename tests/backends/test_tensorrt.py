"""TensorRT on this machine's GPU: what its options ask for and bind to. Builds with the real library are not run here.

What both libraries share is built for real with TensorRT-RTX, whose enums also show that the names asked for exist.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gpus import A10, L4, RTX_4090, T4

from sam3_build import registry
from sam3_build.backends import _tensorrt, tensorrt
from sam3_build.backends._engine_layers import layer_types
from sam3_build.backends.tensorrt import BACKEND, BuilderSettings, cache_name, settings, timing_cache
from sam3_build.errors import BuildError
from sam3_build.machine import toolchain
from sam3_build.spec import DeviceFingerprint, Json

DEFAULTS: dict[str, Json] = {
    "hardware_compatibility": "none",
    "version_compatible": False,
    "driver": "major",
    "workspace_gib": None,
    "optimization_level": None,
}
GIB = 1 << 30


def options(**changes: Json) -> dict[str, Json]:
    return {**DEFAULTS, **changes}


# ------------------------------------------------------------------ what is asked of the builder


def test_the_options_of_a_manifest_have_these_defaults() -> None:
    from dataclasses import asdict

    assert asdict(tensorrt.TensorRTOptions()) == DEFAULTS


@pytest.mark.parametrize(
    ("changes", "free", "asked"),
    [
        ({}, 8 * GIB, BuilderSettings(6 * GIB, None, False, None)),
        ({}, None, BuilderSettings(None, None, False, None)),
        ({"workspace_gib": 1.5}, 8 * GIB, BuilderSettings(1536 << 20, None, False, None)),
        ({"hardware_compatibility": "ampere_plus"}, None, BuilderSettings(None, "AMPERE_PLUS", False, None)),
        (
            {"hardware_compatibility": "same_compute_capability"},
            None,
            BuilderSettings(None, "SAME_COMPUTE_CAPABILITY", False, None),
        ),
        ({"version_compatible": True, "optimization_level": 0}, None, BuilderSettings(None, None, True, 0)),
    ],
)
def test_options_become_settings_and_the_workspace_follows_the_free_memory(
    changes: dict[str, Json], free: int | None, asked: BuilderSettings
) -> None:
    assert settings(options(**changes), free) == asked


def test_settings_become_polygraphys_arguments_in_the_librarys_own_enums() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    found = tensorrt.config_arguments(trt, BuilderSettings(GIB, "AMPERE_PLUS", True, 3))
    assert found == {
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "memory_pool_limits": {trt.MemoryPoolType.WORKSPACE: GIB},
        "hardware_compatibility_level": trt.HardwareCompatibilityLevel.AMPERE_PLUS,
        "version_compatible": True,
        "builder_optimization_level": 3,
    }
    assert tensorrt.config_arguments(trt, BuilderSettings(None, None, False, None)) == {
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED
    }


def test_polygraphy_takes_every_argument() -> None:
    """It would raise TypeError; nothing of the library is loaded to make this object."""
    code = (
        "import tensorrt_rtx as trt\n"
        "from polygraphy.backend.trt import CreateConfig\n"
        "from sam3_build.backends.tensorrt import config_arguments, BuilderSettings\n"
        "made = CreateConfig(profiles=[], progress_monitor=None, load_timing_cache=None,\n"
        "                    **config_arguments(trt, BuilderSettings(1 << 30, 'AMPERE_PLUS', True, 3)))\n"
        "print(made.version_compatible, made.builder_optimization_level, made.tf32)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["True 3 False"], done.stderr


# ------------------------------------------------------------------ what an engine's inspector says


def layer(metadata: str, *types: str) -> dict[str, Json]:
    inputs: list[Json] = [{"Name": f"t{i}", "Dimensions": [1, 8], "Format/Datatype": t} for i, t in enumerate(types)]
    return {"Name": "a kernel", "LayerType": "gemm", "Inputs": inputs, "Outputs": [], "Metadata": metadata}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Half", "FLOAT16"),
        ("Row major linear FP16 format", "FLOAT16"),
        ("Float", "FLOAT"),
        ("Row major linear FP32", "FLOAT"),
        ("BFloat16", "BFLOAT16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "INT8"),
    ],
)
def test_the_words_of_several_releases_are_read(said: str, found: str) -> None:
    assert layer_types({"Layers": [layer("[ONNX Layer: layers.0/MatMul_0]", said)]}) == {"layers.0/MatMul_0": found}


def test_every_node_that_a_layer_was_made_of_gets_its_type() -> None:
    fused = "[ONNX Layer: layers.0/MatMul_0]\x1e[ONNX Layer: layers.0/Add_0]"
    assert layer_types({"Layers": [layer(fused, "Half", "Half")]}) == {
        "layers.0/MatMul_0": "FLOAT16",
        "layers.0/Add_0": "FLOAT16",
    }


def test_what_an_engine_does_not_tell_is_not_guessed() -> None:
    """Mixed inputs, indices only, layers without metadata, and names alone, as engines without details give."""
    layers: list[Json] = [
        layer("[ONNX Layer: a]", "Half", "Float"),
        layer("[ONNX Layer: b]", "Int64"),
        layer("", "Half"),
    ]
    assert layer_types({"Layers": [*layers, "a name", {"Name": "bare"}]}) == {}
    assert layer_types({}) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workspace_gib": 0.0}, "workspace_gib is 0.0: it must be above 0"),
        ({"optimization_level": 6}, "optimization_level is 6: TensorRT has 0 to 5"),
        ({"optimization_level": -1}, "optimization_level is -1"),
    ],
)
def test_what_no_machine_can_build_says_why(changes: dict[str, Json], message: str) -> None:
    assert message in str(BACKEND.impossible(options(**changes), registry.precision("fp16")))
    assert BACKEND.impossible(options(), registry.precision("fp16")) is None


# ------------------------------------------------------------------ what an engine is bound to


def test_an_engine_for_this_gpu_is_bound_to_its_whole_class_and_to_the_major_driver() -> None:
    assert BACKEND.device_fields(options(), L4) == {**L4.gpu_class, "driver_major": "580"}


@pytest.mark.parametrize(
    ("policy", "fields"), [("ignore", {}), ("major", {"driver_major": "580"}), ("exact", {"driver": "580.65.06"})]
)
def test_compatible_engines_are_bound_to_less(policy: str, fields: dict[str, Json]) -> None:
    def bound(level: str, gpu: DeviceFingerprint) -> dict[str, Json]:
        return dict(BACKEND.device_fields(options(hardware_compatibility=level, driver=policy), gpu))

    same = bound("same_compute_capability", RTX_4090)
    assert same == bound("same_compute_capability", L4) == {"os": "linux-x86_64", "compute_capability": "8.9", **fields}
    assert same != bound("same_compute_capability", A10)
    plus = bound("ampere_plus", RTX_4090)
    assert plus == bound("ampere_plus", A10) == {"os": "linux-x86_64", "minimum_compute_capability": "8.0", **fields}


def test_a_gpu_older_than_the_compatibility_asked_for_cannot_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensorrt.Library, "missing", lambda self: None)
    asked = options(hardware_compatibility="ampere_plus")
    assert "needs compute capability 8.0; this machine's GPU has 7.5" in str(BACKEND.missing(asked, T4))
    assert BACKEND.missing(asked, A10) is None
    assert BACKEND.missing(options(), T4) is None


def test_a_missing_library_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensorrt, "find_spec", lambda name: None if name == "tensorrt" else object())
    said = "the Python package tensorrt is not installed (pip install 'sam3-build[tensorrt]')"
    assert BACKEND.missing(options(), L4) == said


def test_an_engine_that_later_releases_may_run_belongs_to_the_major_release(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BACKEND.tools(options()) == ("tensorrt", "polygraphy")
    assert BACKEND.tools(options(version_compatible=True)) == ("tensorrt:major", "polygraphy")
    installed = {"tensorrt-cu13": "10.16.1.11"}
    monkeypatch.setattr(toolchain, "_version", installed.get)
    toolchain.version.cache_clear()
    try:
        assert toolchain.version("tensorrt") == "10.16.1.11 (tensorrt-cu13)"
        assert toolchain.version("tensorrt:major") == "10 (tensorrt-cu13)"
        assert toolchain.version("onnxruntime") == "absent"
    finally:
        toolchain.version.cache_clear()


# ------------------------------------------------------------------ timing cache


def add_timings(folder: Path, gpu: DeviceFingerprint, data: bytes, release: str = "10.16.1.11") -> bytes:
    """Build with the timing cache: return what was there, and add to it."""
    with timing_cache(folder, gpu, release) as cache:
        assert cache
        there = cache.read_bytes()
        cache.write_bytes(there + data)
    return there


def test_timings_are_kept_for_the_next_build_of_this_gpu_and_release_only(tmp_path: Path) -> None:
    folder = tmp_path / ".timing"
    assert add_timings(folder, L4, b"one") == b""
    assert add_timings(folder, L4, b"two") == b"one"
    assert add_timings(folder, L4, b"") == b"onetwo"
    assert add_timings(folder, L4, b"x", "11.4.0.106") == b""
    assert add_timings(folder, RTX_4090, b"x") == b""
    assert add_timings(folder, replace(L4, driver="590.1"), b"x") == b""
    assert add_timings(folder, replace(L4, uuid="GPU-y", index=1), b"") == b"onetwo"
    assert cache_name(L4, "10.16.1.11").startswith("tensorrt-10.16.1.11.nvidia-l4.")


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[:40], lambda d: d + b"\0", lambda d: b""])
def test_a_damaged_timing_cache_is_set_aside_with_a_warning(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    add_timings(tmp_path, L4, b"one\ntwo")
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert add_timings(tmp_path, L4, b"anew") == b""
    assert "is damaged: set aside as" in caplog.text
    assert path.with_suffix(".damaged").exists()
    assert add_timings(tmp_path, L4, b"") == b"anew"


def test_a_build_that_fails_keeps_no_timings_and_one_without_a_folder_needs_none(tmp_path: Path) -> None:
    with pytest.raises(BuildError), timing_cache(tmp_path, L4, "11") as cache:
        assert cache
        cache.write_bytes(b"half")
        raise BuildError("it failed")
    assert list(tmp_path.iterdir()) == []
    with timing_cache(None, L4, "11") as cache:
        assert cache is None


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert add_timings(tmp_path / "file", L4, b"one") == b""
    assert "cannot be kept" in caplog.text


# ------------------------------------------------------------------ shared with TensorRT-RTX


def test_polygraphy_that_drives_the_other_library_is_refused() -> None:
    code = (
        "from sam3_build.backends import _tensorrt, tensorrt\n"
        "from sam3_build.errors import BuildError\n"
        "try: _tensorrt._import(tensorrt.LIBRARY)\n"
        "except BuildError as error: print(error)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    said = "Polygraphy was imported to drive tensorrt_rtx: start the process with POLYGRAPHY_USE_TENSORRT_RTX=0\n"
    assert done.stdout == said
    assert dict(BACKEND.env) == {"POLYGRAPHY_USE_TENSORRT_RTX": "0"}


def test_progress_counts_phases_within_phases_and_says_a_line_now_and_then() -> None:
    progress = _tensorrt.Progress()
    progress.start("Building", None, 4)
    progress.start("Cloning", "Building", 100)
    said = [line for step in range(100) if (line := progress.step("Cloning", step))]
    assert said == ["progress: 0 % (Cloning)", *(f"progress: {n} % (Cloning)" for n in (5, 10, 15, 20, 25))]
    progress.finish("Cloning")
    assert progress.step("Building", 0) is None
    assert progress.step("Building", 3) == "progress: 100 % (Building)"
    assert progress.step("unheard of", 0) is None


def test_the_table_of_flags_says_what_the_installed_library_has() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    text = (Path(__file__).parents[2] / "docs" / "tensorrt-flags.md").read_text()
    rows = re.findall(r"^\| (`.*?) \| (yes|no) \| (yes|no) \| (yes|no) \|", text, re.M)
    assert len(rows) == 16
    for names, _, _, rtx in rows:
        for name in re.findall(r"`(\w+)\.(\w+)`", names):
            assert hasattr(getattr(trt, name[0]), name[1]) == (rtx == "yes"), name
