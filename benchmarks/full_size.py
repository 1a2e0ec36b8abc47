"""What SAM 3 at full size costs on this machine: seeded random weights, everything that a manifest can ask of a CPU.

    python benchmarks/full_size.py [--pictures FOLDER] [--folder FOLDER] [--jobs N] [--skip STEP ...]

Steps, each timed, each on what the one before left:

    build    cold: export, simplify, patch, write FP16, one TensorRT-RTX engine for three generations, 4 components
    profile  another prompt length: only the decoder's engine is built again
    noop     nothing to do, best of 7; the same for a checkpoint file of 3.4 GB, once after it was touched
    verify   PyTorch, the FP32 and the FP16 graphs on ONNX Runtime, on the pictures given (else on drawn ones)

The peak is that of all workers together, looked at ten times a second. What is printed is what
benchmarks/results/full_size.txt holds. Takes 30 minutes, 24 GB of memory and 40 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from sam3_build.commands.output import outlive_readers
from sam3_build.execution.session import Session, open_session
from sam3_build.machine.toolchain import version

ROOT = Path(__file__).parents[1]
TOOLS = ("torch", "transformers", "onnx", "onnxruntime", "onnxsim", "tensorrt-rtx", "polygraphy")
MISSED: list[str] = []
STEPS = ("build", "profile", "noop", "verify")

MANIFEST = """
extends: sam3_image_random.yaml
precisions: [fp16]
targets: {cpu: null, local: null}
samples:
"""
# Words of the miniature's tokenizer: random weights make nothing of any.
DRAWN = [("samples/scene1.png", "red circle", None), ("samples/scene2.png", "star", "neg:10,10,40,40")]
REAL = [("truck.jpg", "red circle", None), ("groceries.jpg", "star", "pos:100,100,80,160;neg:400,200,90,90")]


def project(folder: Path, pictures: Path | None) -> Path:
    """Make a project whose manifest `full` is sam3_image_random for one precision and one engine per component."""
    shutil.copytree(ROOT / "manifests", folder / "manifests", dirs_exist_ok=True)
    if not (folder / "dodo.py").exists():
        (folder / "dodo.py").symlink_to(ROOT / "dodo.py")
    samples = [(str(pictures / name), *prompt) for name, *prompt in REAL] if pictures else DRAWN
    lines = [
        f"  - {{image: {image}, text: {text}{f', boxes: {boxes!r}' if boxes else ''}}}"
        for image, text, boxes in samples
    ]
    (folder / "manifests" / "full.yaml").write_text(MANIFEST + "\n".join(lines) + "\n")
    return folder


def aim(what: str, measured: float, limit: float, unit: str) -> str:
    """Return what was measured beside what it should stay under, and note a miss."""
    if measured > limit:
        MISSED.append(what)
    return f"{what} {measured:.3g} {unit} (aim: {limit:g} {unit}{', MISSED' if measured > limit else ''})"


# ------------------------------------------------------------------ running


class Peak:
    """The most memory that the processes below one have resident together."""

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def watch(self, pid: int) -> Iterator[None]:
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.1):
                self.bytes = max(self.bytes, _resident(pid))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _resident(pid: int) -> int:
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0  # one of them ended meanwhile; the next look counts again
    return total


def environ() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("SAM3_")} | {"PYTHONPATH": str(ROOT)}


def doit(folder: Path, *args: str) -> tuple[float, int, str]:
    """Run `doit <args>` on the manifest `full`; return its seconds, its peak in bytes, and its output."""
    began, peak = time.perf_counter(), Peak()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "doit", "manifest=full", *args],
            cwd=folder,
            env=environ(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        with peak.watch(process.pid):
            code = process.wait()
        seconds = time.perf_counter() - began
        log.seek(0)
        output = log.read()
    if code:
        sys.exit(f"doit {' '.join(args)} failed:\n{output}")
    return seconds, peak.bytes, output


def timed(folder: Path, *args: str) -> tuple[float, str]:
    """Run `doit <args>` with nothing beside it; return its seconds and its output."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "doit", "manifest=full", *args],
        cwd=folder,
        env=environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - began, done.stdout


def built(output: str) -> list[str]:
    return [line.split()[1] for line in output.splitlines() if line.startswith("  built ")]


# ------------------------------------------------------------------ steps


def cold_build(folder: Path, jobs: int) -> None:
    shutil.rmtree(folder / "artifacts", ignore_errors=True)
    seconds, peak, output = doit(folder, "-n", str(jobs), "build")
    print(f"cold build of {len(built(output))} actions with -n {jobs}:")
    print(f"  {aim('all of it', seconds, 480, 's')}, {aim('peak of all workers together', peak / 1e9, 8, 'GB')}\n")
    table(open_session(folder, "full", {}), "build")


def table(session: Session, *stages: str) -> None:
    """Print what every action that was built took: those of `stages` and all that they need."""
    print(f"{'action':36} {'seconds':>7} {'peak GB':>8} {'stated':>7} {'nodes':>6} {'MB written':>10}")
    for action in session.plan.actions:
        record = session.resolver.resolve(action.name).record
        measured = action.stage in ("reference", "verify", "reference_gap", "samples")
        if record is None or ("verify" in stages) != measured:
            continue
        known, nodes = record.provenance, record.facts.get("nodes", "")
        peak, stated = (float(str(known[k])) / 1e9 for k in ("peak_bytes", "expected_peak_bytes"))
        print(
            f"{action.name:36} {known['seconds']:7.1f} {peak:8.2f} {stated:7.2f} {nodes:>6} {record.size / 1e6:10.1f}"
        )
    print()


def profile_change(folder: Path) -> None:
    manifest = folder / "manifests" / "full.yaml"
    text = manifest.read_text()
    length = 61 + int(time.time()) % 1000  # one that no earlier run in this folder asked for
    manifest.write_text(text + f"shape_profiles: {{default: {{prompt_len: [1, 34, {length}]}}}}\n")
    seconds, _, output = doit(folder, "build")
    print(f"{aim('another prompt length:', seconds, 15, 's')}, built {', '.join(built(output))}")
    manifest.write_text(text)
    seconds, _, output = doit(folder, "build")
    print(f"taken back: {seconds:.2f} s, built {len(built(output))}\n")


def noop(folder: Path) -> None:
    print(aim("no-op of `doit build`, best of 7:", quickest(folder, "build"), 0.2, "s"))
    weights = folder / "manifests" / "weights.safetensors"
    write_checkpoint(weights)
    manifest, part = folder / "manifests" / "full.yaml", "build:geometry_encoder"
    text = manifest.read_text()
    source = f"checkpoint: {{random: null, path: {weights.name}, config: sam3_image.json}}\n"
    manifest.write_text(text + source)
    doit(folder, part)
    what = f"no-op of `doit {part}` from a checkpoint file of {weights.stat().st_size / 1e9:.2f} GB, best of 7:"
    print(aim(what, quickest(folder, part), 0.2, "s"))
    os.utime(weights)
    time.sleep(1)
    seconds, output = timed(folder, part)
    print(f"{aim('once after it was touched:', seconds, 2, 's')}, built {len(built(output))}\n")
    manifest.write_text(text)
    weights.unlink()


def quickest(folder: Path, *args: str) -> float:
    times = []
    for _ in range(8):  # the first one may still have digests to remember
        seconds, output = timed(folder, *args)
        assert not built(output), output
        times.append(seconds)
    return min(times[1:])


def write_checkpoint(path: Path) -> None:
    """Write a safetensors file with Sam3Model's keys, full size, drawn from the seed of `full`."""
    from safetensors.torch import save_file

    from sam3_build.families.sam3_image.keys import KEYS
    from sam3_build.families.sam3_image.modules import skeleton
    from sam3_build.weights import random_weights

    tensors = {}
    family = ("vision_encoder", "text_encoder", "geometry_encoder", "decoder")
    for component in family:
        for recipe in random_weights.recipes(skeleton(component, {"model_type": "sam3"}), KEYS):
            tensors[recipe.key] = recipe.draw(0)
    save_file(tensors, path)


def verify(folder: Path, jobs: int) -> None:
    seconds, peak, output = doit(folder, "-n", str(jobs), "verify")
    print(f"verify, -n {jobs}: {seconds:.0f} s, peak of all workers together {peak / 1e9:.1f} GB\n")
    table(open_session(folder, "full", {}), "verify")
    print(output[output.index("pytorch fp32 vs") :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="a folder with truck.jpg and groceries.jpg of SAM 2's notebooks")
    parser.add_argument("--folder", type=Path, help="where to build, and to find what an earlier run left")
    parser.add_argument("--jobs", type=int, default=2, help="doit's -n")
    parser.add_argument("--skip", nargs="*", default=[], choices=STEPS, help="steps to leave out")
    args = parser.parse_args()
    memory = psutil.virtual_memory().total / 1e9
    print(f"{' '.join(['python', 'benchmarks/full_size.py', *sys.argv[1:]])}")
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GB, Python {platform.python_version()}")
    print(", ".join(f"{tool} {version(tool)}" for tool in TOOLS) + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = project(args.folder or Path(scratch), args.pictures and args.pictures.absolute())
        if "build" not in args.skip:
            cold_build(folder, args.jobs)
        if "profile" not in args.skip:
            profile_change(folder)
        if "noop" not in args.skip:
            noop(folder)
        if "verify" not in args.skip:
            verify(folder, args.jobs)
    sys.exit(f"missed: {', '.join(MISSED)}" if MISSED else 0)


if __name__ == "__main__":
    outlive_readers()
    main()
