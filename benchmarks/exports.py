"""What an export takes: seconds, CPU seconds and peak memory of each component's worker, here and in another checkout.

First `doit manifest=M checkpoint`, then `python benchmarks/exports.py [M] [--against CHECKOUT] [--component C]...
[--repeat N]`. Each export is a process of its own, imports and weights included; the two checkouts take turns, so that
a noisy machine disturbs both alike. Best and median are printed, and whether the files are equal, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sam3_build.execution.session import Session, open_session

ROOT = Path(__file__).parents[1]
CODE = """
import json, sys
from pathlib import Path
from sam3_build.stages import export
assert export.__file__.startswith(sys.argv[1]), f"{export.__file__} is not below {sys.argv[1]}"
params, inputs, out = json.load(sys.stdin)
print(json.dumps(export.run(params, {role: Path(path) for role, path in inputs.items()}, Path(out))))
"""


@dataclass(frozen=True)
class Run:
    """One export: seconds, CPU seconds, peak bytes, nodes, and a digest of what it wrote."""

    seconds: float
    cpu: float
    peak: int
    nodes: int
    digest: str


def export(session: Session, component: str, checkout: Path, scratch: Path) -> Run:
    """Export a component with the code of `checkout`, with one thread."""
    action = session.plan.action(f"export:{component}")
    inputs = {role: str(path.absolute()) for role, path in session.resolver.input_paths(action).items()}
    out = scratch / "out"
    out.mkdir()
    argv = [sys.executable, "-P", "-c", CODE, str(checkout)]  # -P: the code of `checkout`, not of the current folder
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as request, tempfile.TemporaryFile("w+") as said:
        json.dump([action.params, inputs, str(out)], request)
        request.seek(0)
        process = subprocess.Popen(argv, stdin=request, stdout=said, stderr=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode:
            sys.exit(f"export:{component} with the code of {checkout} ended with {process.returncode}")
        said.seek(0)
        nodes = json.loads(said.read().splitlines()[-1])["nodes"]
    digest = hashlib.sha256()
    for file in sorted(out.iterdir()):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    shutil.rmtree(out)
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, nodes, digest.hexdigest())


def compare(session: Session, component: str, checkouts: Sequence[Path], repeat: int, scratch: Path) -> list[float]:
    """Print one component's lines; return the best seconds of each checkout."""
    runs: dict[Path, list[Run]] = {checkout: [] for checkout in checkouts}
    for _ in range(repeat):
        for checkout, found in runs.items():
            found.append(export(session, component, checkout, scratch))
    same = len({run.digest for found in runs.values() for run in found}) == 1
    for checkout, found in runs.items():
        seconds = [run.seconds for run in found]
        cpu, peak = min(run.cpu for run in found), max(run.peak for run in found) / 1e9
        print(
            f"{component:18}{'here' if checkout == ROOT else 'against':8}{min(seconds):8.1f}"
            f"{statistics.median(seconds):8.1f}{cpu:9.1f}{peak:9.2f}{found[0].nodes:7}  {'same' if same else 'other'}",
            flush=True,
        )
    return [min(run.seconds for run in found) for found in runs.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", nargs="?")
    parser.add_argument("--against", type=Path, help="a checkout of other code to take turns with")
    parser.add_argument("--component", action="append", help="only these; else all of the manifest")
    parser.add_argument("--repeat", type=int, default=1, help="exports of each component by each checkout")
    given = parser.parse_args()
    session = open_session(ROOT, given.manifest, os.environ)
    checkouts = [*([given.against.absolute()] if given.against else []), ROOT]
    print(f"{'':18}{'code':8}{'best s':>8}{'median':>8}{'CPU s':>9}{'peak GB':>9}{'nodes':>7}  bytes")
    with tempfile.TemporaryDirectory() as scratch:
        components = given.component or list(session.manifest.components)
        best = [compare(session, name, checkouts, given.repeat, Path(scratch)) for name in components]
    totals = [sum(column) for column in zip(*best, strict=True)]
    print(f"all, best: {' and '.join(f'{total:.1f} s' for total in totals)}; ratio {totals[-1] / totals[0]:.2f}")


if __name__ == "__main__":
    main()
