"""How long doing nothing takes: a no-op of the default manifest and of 1000 actions, each beside plain doit.

Run `make demo` first, then `python benchmarks/noop.py [repeats]`. Runs alternate in one process list, so that a noisy
machine disturbs both alike; the best and the median of each are printed, and the ratio of the bests.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sam3_build.commands.output import outlive_readers
from sam3_build.execution.session import Session, open_session
from sam3_build.store.resolve import Answer

ROOT = Path(__file__).parents[1]
LIMITS = {"default manifest": 0.2, "1000 actions": 0.35}

PLAIN_DODO = """
DOIT_CONFIG = {"backend": "sqlite3"}
def task_step():
    for i in range(%d):
        yield {"name": f"{i:04}", "actions": [f"cp input {i}.out"], "file_dep": ["input"], "targets": [f"{i}.out"]}
"""


def seconds(folder: Path, environ: dict[str, str], *tasks: str) -> float:
    """Return how long `doit <tasks>` takes in `folder`. It must find nothing to do."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "doit", *tasks], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode or "  run " in done.stdout or "\n.  " in done.stdout:
        sys.exit(f"{folder}: this was no no-op:\n{done.stdout}{done.stderr}")
    return took


def plain_doit(folder: Path, tasks: int) -> Path:
    """Make a folder where plain doit has `tasks` tasks, each with a file_dep and a target, all up to date."""
    folder.mkdir()
    (folder / "input").write_text("input")
    (folder / "dodo.py").write_text(PLAIN_DODO % tasks)
    subprocess.run([sys.executable, "-m", "doit"], cwd=folder, check=True, capture_output=True)
    return folder


def thousand_actions(folder: Path) -> tuple[Path, int]:
    """Make a project with about 1000 actions, their outputs made up and in its store; return it and the count."""
    manifests = folder / "manifests"
    manifests.mkdir(parents=True)
    (folder / "dodo.py").symlink_to(ROOT / "dodo.py")
    default = ROOT / "manifests" / "sam3_mini.yaml"
    profiles = [
        f"  p{i:03}: {{batch: [1, 1, {9 + i}], num_boxes: [1, 8, 20], prompt_len: [1, 34, 60]}}" for i in range(116)
    ]
    targets = [
        f'  t{i:03}: {{backend: tensorrt_rtx, compute_capabilities: ["8.9"], shape_profiles: [p{i:03}]}}'
        for i in range(116)
    ]
    lines = [f"extends: {default}", "shape_profiles:", *profiles, "targets:", *targets, ""]
    (manifests / "sam3_mini.yaml").write_text("\n".join(lines))
    session = open_session(folder, None, {})
    for action in session.plan.actions:
        _fill(session, action.name)
    session.store.digests.save()
    return folder, len(session.plan.actions)


def _fill(session: Session, name: str) -> None:
    action = session.plan.action(name)
    single = {i.file for a in session.plan.actions for i in a.inputs.values() if i.action == name and i.file}
    answer = session.resolver.resolve(name)
    assert answer.key and answer.document
    out = session.store.workdir(answer.key) / "out"
    out.mkdir()
    for file in single | set(action.view) or {"data"}:
        (out / file).write_text(name)
    if action.stage == "verify":
        (out / "statistics.json").write_text('{"outputs": {}}')
    record = session.store.commit(
        key=answer.key, action=name, document=answer.document, out=out, facts={}, provenance={}
    )
    session.resolver.settle(name, Answer("fresh", answer.key, answer.document, record))
    session.view.publish(action, record)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SAM3_") and k != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as scratch:
        # Nobody's no-op compiles modules: one that may not keep bytecode would time mostly that.
        environ = kept | {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(Path(scratch) / "bytecode")}
        big, count = thousand_actions(Path(scratch) / "big")
        small = len(open_session(ROOT, None, {}).plan.actions)
        pairs = {
            "default manifest": (ROOT, plain_doit(Path(scratch) / "plain_small", small), small),
            "1000 actions": (big, plain_doit(Path(scratch) / "plain_big", count), count),
        }
        missed = False
        print(f"{'':18} actions ours best    median plain best   median  ratio")
        for name, (ours, plain, actions) in pairs.items():
            tasks = ["build"] if name == "1000 actions" else []  # its statistics are made up: nothing to judge
            times: dict[str, list[float]] = {"ours": [], "plain": []}
            seconds(ours, environ, *tasks)  # remembers digests of files that were too young to be remembered
            for _ in range(repeats):
                times["ours"].append(seconds(ours, environ, *tasks))
                times["plain"].append(seconds(plain, environ))
            best = min(times["ours"])
            columns = [f(times[who]) for who in ("ours", "plain") for f in (min, statistics.median)]
            print(f"{name:18} {actions:7}", *(f"{c:8.3f}s" for c in columns), f"{best / min(times['plain']):6.2f}")
            missed |= best > LIMITS[name]
    sys.exit("over the limit: " + ", ".join(f"{n} {s} s" for n, s in LIMITS.items()) if missed else 0)


if __name__ == "__main__":
    outlive_readers()
    main()
