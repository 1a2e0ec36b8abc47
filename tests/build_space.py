"""A scratch project: the real front end, store and plan with toy stages; `doit` as a process of its own; what ran."""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from py_compile import PycInvalidationMode

import warm_python

from sam3_build.digest import digest

ROOT = Path(__file__).parents[1]
TOY = Path(__file__).parent / "toy"


def copy_manifests(folder: Path) -> None:
    """Copy the manifests that ship to `folder`/manifests; the miniatures' weights are links."""
    weights = "model.safetensors"
    shutil.copytree(ROOT / "manifests", folder / "manifests", ignore=shutil.ignore_patterns(weights))
    for file in (ROOT / "manifests").glob(f"*/{weights}"):
        (folder / file.relative_to(ROOT)).symlink_to(file)


# Every action of tests/toy/manifest.yaml, and those whose output the view shows.
COMPONENTS = ("encoder", "head")
STEMS = tuple(f"{component}.{precision}" for component in COMPONENTS for precision in ("fp32", "fp16"))
SHOWN = frozenset(
    {f"precision:{stem}" for stem in STEMS} | {f"build:{stem}.{target}" for stem in STEMS for target in ("cpu", "ada")}
)
ACTIONS = SHOWN | {
    "checkpoint",
    "samples",
    "patch:encoder",
    *(f"{stage}:{component}" for stage in ("reference", "export", "simplify") for component in COMPONENTS),
    *(f"verify:{stem}" for stem in STEMS),
}


def matching(*patterns: str, among: frozenset[str] = ACTIONS) -> set[str]:
    """Return the toy actions that any pattern matches; each pattern must match one."""
    found = {pattern: {name for name in among if fnmatchcase(name, pattern)} for pattern in patterns}
    assert all(found.values()), f"some of these match no action: {found}"
    return set().union(*found.values())


@dataclass(frozen=True)
class Run:
    """The exit code and output of one process, and the actions that workers built or the view got back."""

    code: int
    output: str

    @property
    def built_lines(self) -> list[str]:
        return re.findall(r"^  built +(\S+)", self.output, re.M)

    @property
    def built(self) -> set[str]:
        return set(self.built_lines)

    @property
    def restored(self) -> set[str]:
        return set(re.findall(r"^  restored +(\S+)", self.output, re.M))


@dataclass(frozen=True)
class BuildSpace:
    """A project folder that doit runs in; `prefix` is an argv that each command is run through.

    Where `workers` is false, doit and the commands run in forks of a Python that has their packages loaded
    (warm_python.py), and doit runs stages in forks of itself (toy/forked.py).
    """

    root: Path
    prefix: tuple[str, ...] = ()
    workers: bool = False

    @classmethod
    def create(cls, root: Path) -> BuildSpace:
        shutil.copytree(ROOT / "sam3_build", root / "sam3_build", ignore=shutil.ignore_patterns("__pycache__"))
        opened = "doit_tasks.open_for_doit(Path(__file__).parent)"
        first, found, rest = (ROOT / "dodo.py").read_text().partition(opened)
        assert found
        launch = "__import__('forked').launch"
        (root / "dodo.py").write_text(f"{first}__import__('dataclasses').replace({opened}, launch={launch}){rest}")
        shutil.copy(TOY / "forked.py", root)
        for folder in ("stages", "families", "patches"):
            shutil.copytree(TOY / folder, root / "sam3_build" / folder, dirs_exist_ok=True)
        manifests = root / "manifests"
        manifests.mkdir()
        shutil.copy(TOY / "manifest.yaml", manifests / "toy.yaml")
        (manifests / "weights.safetensors").write_text(json.dumps({"encoder.w": 1, "encoder.b": 2, "head.w": 3}))
        (manifests / "config.json").write_text("{}")
        (manifests / "tokenizer.json").write_text("{}")
        (manifests / "scene.png").write_bytes(b"a picture")
        # Else every process would compile all it imports. Held against the source's digest, so that no edit is missed;
        # workers read no bytecode of plug-ins.
        plug_ins = re.compile(r"/(families|stages|patches)/")
        checked = PycInvalidationMode.CHECKED_HASH
        assert compileall.compile_dir(root / "sam3_build", quiet=1, rx=plug_ins, invalidation_mode=checked)
        return cls(root)

    def copy(self, root: Path) -> BuildSpace:
        """Copy the project with its artifacts, as if it had been built at `root`: it knows its digests and manifest."""
        files: list[tuple[str, str]] = []

        def copy_file(old: str, new: str) -> None:
            shutil.copy2(old, new)
            files.append((old, new))

        shutil.copytree(self.root, root, symlinks=True, copy_function=copy_file)
        _carry_digests(files, root / "artifacts" / ".digests.json")
        known = [root / "artifacts" / ".manifests" / f"{_manifest_entry(place)}.json" for place in (self.root, root)]
        if known[0].is_file():
            known[0].rename(known[1])
        return replace(self, root=root)

    def clone(self, root: Path) -> BuildSpace:
        """Copy the project without its artifacts, as `git clone` would."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns("artifacts"))
        return replace(self, root=root)

    # ------------------------------------------------------------ what it holds

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def store(self) -> Path:
        return self.artifacts / ".store"

    @property
    def view(self) -> Path:
        return self.artifacts / "toy"

    @property
    def report(self) -> bytes:
        return (self.view / "report.json").read_bytes()

    def verdicts(self) -> dict[str, int]:
        """Return verdict -> number of rows of the report."""
        found = [row["verdict"] for row in json.loads(self.report)]
        return {verdict: found.count(verdict) for verdict in sorted(set(found))}

    def shown(self) -> dict[str, str]:
        """Return path -> digest of every file of the view; logs left out, and of sidecars what enters no key."""
        found = {}
        for path in self.view.rglob("*"):
            if path.is_file() and path.parent.name != "logs" and path.name != "report.html":  # it tells times
                data = path.read_bytes()
                if path.name.endswith((".onnx.json", ".engine.json")):
                    data = json.dumps({**json.loads(data), "provenance": None}).encode()
                found[str(path.relative_to(self.view))] = hashlib.sha256(data).hexdigest()
        return found

    def record(self, action: str, store: Path | None = None) -> Path:
        """Return the file of the newest record of an action."""
        store = store or self.store
        (names,) = store.glob(f"names/*/toy/{action.replace(':', '.')}.json")
        key = json.loads(names.read_bytes())[0]
        return store / "records" / key[:2] / f"{key}.json"

    def object(self, action: str, store: Path | None = None) -> Path:
        """Return the folder of the newest output of an action."""
        store = store or self.store
        digest = json.loads(self.record(action, store).read_bytes())["object"]
        return store / "objects" / digest[:2] / digest

    # ------------------------------------------------------------ running

    def environ(self, **extra: str) -> dict[str, str]:
        path = os.pathsep.join([str(self.root), str(self.root / "site")])
        own = {"TOY_WORKERS": "1"} if self.workers else {}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SAM3_", "TOY_", "PYTEST_"))}
        return {**kept, "PYTHONPATH": path, "SAM3_MANIFEST": "toy", "PYTHONDONTWRITEBYTECODE": "1", **own, **extra}

    def start(self, *args: str, **extra: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "doit", *args],
            cwd=self.root,
            env=self.environ(**extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def doit(self, *args: str, **extra: str) -> Run:
        if self.workers or self.prefix:
            return finish(self.start(*args, **extra))
        return Run(*warm_python.run("doit", [*args], str(self.root), self.environ(**extra), mix=True))

    def build(self, *args: str, **extra: str) -> Run:
        """Run `doit` to the end; it must succeed."""
        run = self.doit(*args, **extra)
        assert run.code == 0, run.output
        return run

    def cli(self, *args: str, timeout: float = 120, **extra: str) -> Run:
        if not (self.workers or self.prefix):
            return Run(
                *warm_python.run(
                    "sam3_build", [*args], str(self.root), self.environ(**extra), mix=False, timeout=timeout
                )
            )
        done = subprocess.run(
            [*self.prefix, sys.executable, "-m", "sam3_build", *args],
            cwd=self.root,
            env=self.environ(**extra),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Run(done.returncode, done.stdout + done.stderr)

    def plan(self) -> dict[str, str]:
        """Return action -> state."""
        run = self.cli("plan", "--json")
        assert run.code == 0, run.output
        return {row["action"]: row["state"] for row in json.loads(run.output)}

    # ------------------------------------------------------------ changing

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text in a file of the project; the text must be there."""
        path = self.root / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new))

    def append(self, file: str, text: str) -> None:
        """Add text to the end of a file of the project."""
        path = self.root / file
        path.write_text(path.read_text() + text)

    def install(self, distribution: str, version: str) -> None:
        """Pretend that another version of a distribution is installed: a dist-info folder that is found first."""
        folder = self.root / "site" / f"{distribution}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")

    def sources(self) -> dict[Path, bytes]:
        """Return all files of the project that no build writes."""
        kept = (p for p in self.root.rglob("*") if p.is_file() and self.artifacts not in p.parents)
        return {path: path.read_bytes() for path in kept}

    def restore(self, sources: dict[Path, bytes]) -> None:
        """Bring the files back to what `sources` returned."""
        for path in self.sources().keys() - sources.keys():
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
        for path, data in sources.items():
            if not path.is_file() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def _carry_digests(files: list[tuple[str, str]], cache: Path) -> None:
    """Let the digests that a project remembers hold for the copies of its files, which have other inodes and times."""
    if not cache.is_file():
        return
    known = json.loads(cache.read_bytes())
    entries: dict[str, list[tuple[str, list[object]]]] = {}
    for slot, entry in known["files"].items():
        kind, inode = slot.split(":", 1)
        entries.setdefault(inode, []).append((kind, entry))
    carried = {}
    for old, new in files:
        was, now = Path(old).stat(), Path(new).stat()
        for kind, entry in entries.get(f"{was.st_dev}:{was.st_ino}", ()):
            if entry[:3] == _state(was):
                carried[f"{kind}:{now.st_dev}:{now.st_ino}"] = [*_state(now), *entry[3:]]
    cache.write_text(json.dumps({**known, "files": carried}))


def _state(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _manifest_entry(root: Path) -> str:
    """Return under which name a project at `root` remembers that its manifest was checked."""
    return digest(["toy", str(root), str(Path.home()), str(root)])


def finish(process: subprocess.Popen[str]) -> Run:
    """Wait for a process that `start` began."""
    output, _ = process.communicate(timeout=120)
    return Run(process.returncode, output)


def processes_in(root: Path) -> list[int]:
    """Return the processes that run with `root` as their working folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink() == root.resolve():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until(claim: Callable[[], bool], seconds: float) -> bool:
    """Tell whether `claim` came true within so many seconds."""
    end = time.monotonic() + seconds
    while not (true := claim()) and time.monotonic() < end:
        time.sleep(0.02)
    return true
