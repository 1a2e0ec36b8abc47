"""The fingerprint: what is read, what is remembered, which keys each field of it moves, and the lock of a GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from build_space import ROOT
from gpus import A10, L4, READINGS, RTX_4090, T4

from sam3_build.errors import BuildError, NoDeviceError
from sam3_build.machine import devices, gpu, gpu_lock, nvidia, remembered
from sam3_build.manifest.load import load
from sam3_build.plan.make import make_plan
from sam3_build.spec import DeviceFingerprint, Json, Plan

# ------------------------------------------------------------------ what is read

# Reads in a process of its own, which finds the stub before any driver that this machine may have.
READ = """
import json, sys
from dataclasses import asdict
from sam3_build.machine import nvidia
from sam3_build.errors import NoDeviceError
import ctypes, pynvml
pynvml.nvmlLib = ctypes.CDLL(sys.argv[1])
try:
    found = nvidia.read(sys.argv[1])
    print(json.dumps([asdict(found), nvidia.free_bytes(found.uuid)]))
except NoDeviceError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make the driver's stub with")
    library = tmp_path_factory.mktemp("stub") / "libstub.so"
    source = Path(__file__).parent / "driver_stub.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True)
    return library


def read(stub: Path, **environ: str) -> Json:
    # NVML is opened by name in nvmlInit; a library path with that name puts the stub there.
    (stub.parent / "libnvidia-ml.so.1").unlink(missing_ok=True)
    (stub.parent / "libnvidia-ml.so.1").symlink_to(stub)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(stub.parent), **environ}
    done = subprocess.run([sys.executable, "-c", READ, str(stub)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout)
    return found


def test_the_drivers_calls_are_made_as_its_headers_declare_them(stub: Path) -> None:
    found = read(stub)
    assert isinstance(found, list)
    expected = replace(READINGS["rtx_4090"], uuid="GPU-07172737-4757-6777-8797-a7b7c7d7e7f7", index=2, cuda="13.2")
    assert nvidia.Reading(**found[0]) == expected
    assert found[1] == 20000 << 20


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"STUB_CUINIT": "100", "CUDA_VISIBLE_DEVICES": ""}, "CUDA finds no GPU (CUDA_VISIBLE_DEVICES='' may hide it)"),
        ({"STUB_CUINIT": "803"}, "CUDA does not answer: cuInit says 'stub error' (803); does `nvidia-smi` work?"),
        ({"STUB_NVML": "18"}, "the NVIDIA driver does not answer: RM has detected an NVML/RM version mismatch; does"),
    ],
)
def test_what_the_driver_refuses_is_one_sentence(stub: Path, environ: dict[str, str], message: str) -> None:
    assert message in str(read(stub, **environ))


def test_a_machine_without_a_driver_library_says_so() -> None:
    with pytest.raises(NoDeviceError, match=r"the driver's CUDA library cannot be loaded \(libnone\.so"):
        nvidia.read("libnone.so")


def test_a_machine_without_a_driver_loads_nothing_to_learn_it(tmp_path: Path) -> None:
    if nvidia.state(os.environ) is not None:
        pytest.skip("this machine has an NVIDIA driver")
    code = (
        "import os, sys; from pathlib import Path; from sam3_build.errors import *\n"
        "from sam3_build.machine import devices\n"
        "try: devices.cached_fingerprint(os.environ, Path('x'))\n"
        "except NoDeviceError as e: print(e)\n"
        "print([m for m in ('pynvml', 'ctypes', 'uuid', 'platform') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "none found on this machine\n[]\n"


def test_a_fingerprint_holds_what_engines_are_bound_to() -> None:
    assert RTX_4090.fields == {
        "os": "linux-x86_64",
        "name": "NVIDIA GeForce RTX 4090",
        "compute_capability": "8.9",
        "texture_alignment": 512,
        "sm_count": 128,
        "memory_bus_bits": 384,
        "l2_bytes": 75497472,
        "shared_memory_per_sm": 102400,
        "shared_memory_per_block_optin": 101376,
        "reserved_shared_memory_per_block": 1024,
        "integrated": False,
        "ecc": False,
        "memory_mib": 24564,
        "driver_major": "580",
        "driver": "580.65.06",
        "cuda": "13.0",
    }


def test_a_few_kilobytes_of_memory_make_no_other_class() -> None:
    found = replace(READINGS["l4"], memory_bytes=READINGS["l4"].memory_bytes + 4096)
    assert gpu.fingerprint(found, "linux-x86_64") == L4


def test_the_first_field_that_differs_is_named_and_others_are_not_compared() -> None:
    assert gpu.difference(RTX_4090.gpu_class, RTX_4090) is None
    assert gpu.difference(RTX_4090.gpu_class, L4) == (
        "its name is 'NVIDIA L4', and 'NVIDIA GeForce RTX 4090' was planned for"
    )
    fields: dict[str, Json] = {"os": "linux-x86_64", "compute_capabilities": ["7.5"], "minimum_compute_capability": "9"}
    assert gpu.difference(fields, T4) is None


# ------------------------------------------------------------------ which keys a field moves


def changed(device: DeviceFingerprint, name: str) -> DeviceFingerprint:
    """Return a GPU that differs in one field."""
    if name in device.gpu_class:
        return replace(device, gpu_class={**device.gpu_class, name: "other"})
    return replace(device, **{name: 5 if name == "index" else "999.9.9"})  # type: ignore[arg-type]


def planned(folder: Path, options: str, device: DeviceFingerprint) -> Plan:
    (folder / "m.yaml").write_text(
        f"extends: {ROOT / 'manifests' / 'sam3_mini.yaml'}\n"
        f"targets: {{local: {{backend: tensorrt{options}}}, cuda: {{backend: onnxruntime, provider: cuda}}}}\n"
    )
    return make_plan(load(str(folder / "m.yaml"), ROOT), device, "")


def moved(folder: Path, options: str, name: str) -> set[str]:
    """Return the kinds of actions whose device fields change with one field of the GPU."""
    before, after = (
        {a.name: a.device for a in planned(folder, options, device).actions}
        for device in (RTX_4090, changed(RTX_4090, name))
    )
    names = {n for n in before.keys() & after.keys() if before[n] != after[n]}
    return {f"{n.partition(':')[0]} {n.rpartition('.')[2]}" for n in names}


RUNS = {"verify local", "verify cuda", "chain local", "chain cuda"}
BUILDS = {"build local"}
CUDA = {"build cuda"}


@pytest.fixture(autouse=True)
def everything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from sam3_build.backends import _tensorrt, onnxruntime

    monkeypatch.setattr(_tensorrt.Library, "missing", lambda self: None)
    monkeypatch.setattr(onnxruntime, "_is_installed", lambda name: True)


NAMED = ("os", "name", "compute_capability")


@pytest.mark.parametrize("name", sorted(RTX_4090.gpu_class))
def test_each_field_of_the_class_moves_the_keys_of_engines_that_are_for_this_gpu(tmp_path: Path, name: str) -> None:
    # A GPU of another generation does not run RTX's engine for Ada at all.
    ada = set() if name == "compute_capability" else {"verify ada", "chain ada"}
    assert moved(tmp_path, "", name) == BUILDS | RUNS | ada | (CUDA if name in NAMED else set())


@pytest.mark.parametrize("name", ["uuid", "index"])
def test_which_of_two_equal_gpus_it_is_moves_no_key(tmp_path: Path, name: str) -> None:
    assert moved(tmp_path, "", name) == set()
    uuids = {a.gpu for a in planned(tmp_path, "", RTX_4090).actions if a.gpu}
    assert uuids == {RTX_4090.uuid}


@pytest.mark.parametrize(
    ("compatibility", "kept"),
    [("same_compute_capability", {"os", "compute_capability"}), ("ampere_plus", {"os"})],
)
@pytest.mark.parametrize("name", sorted(set(RTX_4090.gpu_class) - {"compute_capability"}))
def test_compatibility_widens_what_an_engine_is_bound_to(
    tmp_path: Path, compatibility: str, kept: set[str], name: str
) -> None:
    found = moved(tmp_path, f", hardware_compatibility: {compatibility}", name)
    assert ("build local" in found) == (name in kept)
    assert "verify local" in found  # what it computes there is measured anew, whatever it is made for


# ------------------------------------------------------------------ remembered


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A driver that answers with what the test puts here."""
    now: dict[str, object] = {"state": ["boot 1"], "reading": READINGS["a10"], "asked": 0}

    def read() -> object:
        now["asked"] = int(str(now["asked"])) + 1
        return now["reading"]

    monkeypatch.setattr(nvidia, "state", lambda environ: now["state"])
    monkeypatch.setattr(nvidia, "read", read)
    return now


def test_a_gpu_is_asked_for_once_until_the_state_of_the_machine_changes(
    driver: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "artifacts" / ".device.json"
    assert devices.cached_fingerprint({}, path) == devices.cached_fingerprint({}, path)
    assert driver["asked"] == 1
    driver["state"] = ["boot 2"]
    devices.cached_fingerprint({}, path)
    assert driver["asked"] == 2
    remembered.drop(path)
    devices.cached_fingerprint({}, path)
    assert driver["asked"] == 3


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"guard": "x"}', b'{"guard": null, "device": {"driver": 1}}'])
def test_what_is_no_fingerprint_is_not_believed(driver: dict[str, object], tmp_path: Path, data: bytes) -> None:
    path = tmp_path / ".device.json"
    path.write_bytes(data)
    assert devices.cached_fingerprint({}, path).gpu_class == A10.gpu_class


def test_a_folder_that_cannot_be_written_only_costs_time(driver: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert devices.cached_fingerprint({}, tmp_path / "file" / ".device.json").gpu_class == A10.gpu_class


# ------------------------------------------------------------------ locked

HOLD = """
import sys, time
from pathlib import Path
from sam3_build.machine import gpu_lock
gpu_lock.LOCKS = Path(sys.argv[1])
with gpu_lock.lock("GPU-x", lambda: print("waiting", flush=True)):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_gpu_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    one, two = (
        subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], env=env, text=True, **pipes)  # type: ignore[call-overload]
        for _ in range(2)
    )
    lines = {p.pid: p.stdout.readline() for p in (one, two)}
    assert sorted(lines.values()) == ["held\n", "waiting\n"]
    holder, waiter = (one, two) if lines[one.pid] == "held\n" else (two, one)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(waiter.stdout.readline()))
    reader.start()
    time.sleep(0.2)
    assert said == []
    holder.communicate("go\n")
    reader.join(10)
    assert said == ["held\n"]
    waiter.communicate("go\n")


def test_a_lock_file_that_leads_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_lock, "LOCKS", tmp_path)
    (tmp_path / "sam3_build.GPU-x.lock").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(BuildError, match=r"GPU-x\.lock: the GPU's lock file cannot be opened"),
        gpu_lock.lock("GPU-x", print),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_file_of_another_user_is_opened_without_making_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux refuses O_CREAT there (protected_regular), and its mode may leave us nothing but reading."""
    monkeypatch.setattr(gpu_lock, "LOCKS", tmp_path)
    path = tmp_path / "sam3_build.GPU-x.lock"
    path.touch(mode=0o444)
    opened: list[int] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda p, flags, *mode: opened.append(flags) or real(p, flags, *mode))
    with gpu_lock.lock("GPU-x", print):
        pass
    assert opened and not any(flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) for flags in opened)
