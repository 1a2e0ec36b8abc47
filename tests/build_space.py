"""A scratch project: the real front end, store, plan and worker with toy stages; real `doit` processes; what ran."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOY = Path(__file__).parent / "toy"


@dataclass(frozen=True)
class Run:
    """The exit code and output of one doit process, and the actions that workers built or the view got back."""

    code: int
    output: str

    @property
    def built(self) -> set[str]:
        return set(re.findall(r"^  built +(\S+)", self.output, re.M))

    @property
    def restored(self) -> set[str]:
        return set(re.findall(r"^  restored +(\S+)", self.output, re.M))


@dataclass(frozen=True)
class BuildSpace:
    """A project folder that doit runs in."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> BuildSpace:
        shutil.copytree(ROOT / "sam3_build", root / "sam3_build", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "dodo.py", root)
        for folder in ("stages", "families", "patches"):
            shutil.copytree(TOY / folder, root / "sam3_build" / folder, dirs_exist_ok=True)
        manifests = root / "manifests"
        manifests.mkdir()
        shutil.copy(TOY / "manifest.yaml", manifests / "toy.yaml")
        (manifests / "weights.json").write_text(json.dumps({"encoder.w": 1, "encoder.b": 2, "head.w": 3}))
        (manifests / "config.json").write_text("{}")
        (manifests / "tokenizer.json").write_text("{}")
        (manifests / "scene.png").write_bytes(b"a picture")
        return cls(root)

    def copy(self, root: Path) -> BuildSpace:
        """Copy the project with its artifacts (other inodes, other times, other path)."""
        shutil.copytree(self.root, root, symlinks=True)
        return BuildSpace(root)

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def environ(self, **extra: str) -> dict[str, str]:
        path = os.pathsep.join([str(self.root), str(self.root / "site")])
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SAM3_")}
        return {**kept, "PYTHONPATH": path, "SAM3_MANIFEST": "toy", "PYTHONDONTWRITEBYTECODE": "1", **extra}

    def start(self, *args: str, **extra: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "doit", *args],
            cwd=self.root,
            env=self.environ(**extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def doit(self, *args: str, **extra: str) -> Run:
        process = self.start(*args, **extra)
        output, _ = process.communicate(timeout=120)
        return Run(process.returncode, output)

    def build(self, *args: str, **extra: str) -> Run:
        """Run `doit` to the end; it must succeed."""
        run = self.doit(*args, **extra)
        assert run.code == 0, run.output
        return run

    def cli(self, *args: str, **extra: str) -> Run:
        done = subprocess.run(
            [sys.executable, "-m", "sam3_build", *args],
            cwd=self.root,
            env=self.environ(**extra),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Run(done.returncode, done.stdout + done.stderr)

    def plan(self) -> dict[str, str]:
        """Return action -> state."""
        run = self.cli("plan", "--json")
        assert run.code == 0, run.output
        return {row["action"]: row["state"] for row in json.loads(run.output)}

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text in a file of the project; the text must be there."""
        path = self.root / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new))

    def install(self, distribution: str, version: str) -> None:
        """Pretend that another version of a distribution is installed: a dist-info folder that is found first."""
        folder = self.root / "site" / f"{distribution}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")


def workers_of(root: Path) -> list[int]:
    """Return the processes that still run with `root` as their working folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink() == root.resolve():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def kill_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to the doit process alone, as a supervisor or the OOM killer does; never to its workers."""
    process.send_signal(number)
    process.communicate(timeout=30)
