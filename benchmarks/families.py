"""What families cost to build at full size, at random weights: seconds, peak memory, nodes and bytes of each action.

    python benchmarks/families.py MANIFEST[:COMPONENT,...] ... [--folder FOLDER]

Each component is exported, simplified, patched, written in FP32, FP16, `fp16_safe` and BF16, and built: by TensorRT-RTX
in the first three as one engine for compute capability 8.6, 8.9 and 12.0, by OpenVINO in FP32 and BF16. Each action is
a process of its own, one after another, begun once its stated memory is free; its line is printed when it ends, so that
what was measured stays when the run is cut off. Seconds of the processor (imports included) are comparable on a machine
that others use too, those beside them are not. What is refused is printed and left out; then the exit status is 1.
Of a component nothing is kept: 12 GB of disk are enough for the largest. benchmarks/results/families.txt has the lines.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sam3_build.commands.output import outlive_readers
from sam3_build.execution import schedule
from sam3_build.execution.launch import Ended, Job, run_worker
from sam3_build.execution.local import How, Outcome
from sam3_build.execution.memory import expected_peak, free_bytes
from sam3_build.execution.session import Session, open_session
from sam3_build.machine.toolchain import version
from sam3_build.spec import Action

ROOT = Path(__file__).parents[1]
TOOLS = ("torch", "transformers", "onnx", "onnxruntime", "onnxsim", "tensorrt-rtx", "openvino")
TARGETS = {
    "rtx": "{backend: tensorrt_rtx, compute_capabilities: ['8.6', '8.9', '12.0'], precisions: [fp32, fp16, fp16_safe]}",
    "openvino": "{backend: openvino, precisions: [fp32, bf16]}",
}


def overlay(folder: Path, name: str) -> Session:
    """Return a session of manifest `name` with the precisions and targets that are measured; its view shows no file."""
    manifest = folder / "manifests" / "measured.yaml"
    extended = f"extends: {name}.yaml\n"
    manifest.write_text(extended)
    others = open_session(folder, manifest.stem, {}).manifest.targets.keys() - TARGETS.keys()
    targets = TARGETS | dict.fromkeys(others, "null")
    lines = [f"  {target}: {options}" for target, options in targets.items()]
    manifest.write_text("\n".join([f"{extended}precisions: [fp32, fp16, fp16_safe, bf16]", "targets:", *lines, ""]))
    session = open_session(folder, manifest.stem, {})
    actions = tuple(replace(action, view={}) for action in session.plan.actions)
    return replace(session, plan=replace(session.plan, actions=actions))


class Measured:
    """Runs workers, and knows the seconds of the processor that the last one took."""

    cpu = 0.0

    def launch(self, job: Job, started: Callable[[int], None]) -> Ended:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = run_worker(job, started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return ended


def build(session: Session, component: str) -> bool:
    """Build a component, print a line for each action, and forget what was built; return whether nothing failed."""
    measured, kept = Measured(), set[Path]()  # equal outputs are one object
    session = replace(session, launch=measured.launch)
    asked = [a for a in session.plan.actions if a.stage == "build" and a.params["component"] == component]
    session = schedule.restrict(session, session.plan, asked)

    def started(action: Action) -> None:
        while free_bytes() < expected_peak(action, session.manifest.family, session.resolver):
            time.sleep(1)

    def ended(action: Action, outcome: Outcome) -> None:
        if outcome.how == How.BUILT:
            record = session.resolver.resolve(action.name).record
            assert record
            seconds, peak = (float(str(record.provenance[key])) for key in ("seconds", "peak_bytes"))
            nodes, size = record.facts.get("nodes", ""), record.size / 1e6
            say(f"{action.name:46} {measured.cpu:7.1f} {seconds:7.1f} {peak / 1e9:8.2f} {nodes:>6} {size:10.1f}")
            done = session.store.object_path(record.object)
            if action.stage == "build":  # nothing reads it
                shutil.rmtree(done)
            elif "component" in action.params:
                kept.add(done)
        elif outcome.how != How.FRESH:
            say(f"{action.name:46} {outcome.how}: {outcome.why.splitlines()[0]}")

    outcomes = schedule.run(session, started, ended, keep_going=True)
    for done in kept:
        shutil.rmtree(done)
    return all(outcome.how in (How.BUILT, How.FRESH) for outcome in outcomes.values())


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST[:COMPONENT,...]")
    parser.add_argument("--folder", type=Path, help="where to build; else a temporary folder")
    args = parser.parse_args()
    say(", ".join(f"{tool} {version(tool)}" for tool in TOOLS))
    succeeded = True
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        shutil.copytree(ROOT / "manifests", Path(scratch, "manifests"))
        for name, _, chosen in (given.partition(":") for given in args.manifests):
            session = overlay(Path(scratch), name)
            for component in chosen.split(",") if chosen else session.manifest.components:
                say(f"\n{f'{name}, {component}':46} {'CPU s':>7} {'seconds':>7} {'peak GB':>8} {'nodes':>6} {'MB':>10}")
                succeeded &= build(session, component)
    return 0 if succeeded else 1


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
