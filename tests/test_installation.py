"""The base installation: what it has, what it says of what it lacks, and that nothing on its way is Linux's alone."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import mypy
import pytest
import runnable
import typer
from build_space import ROOT
from test_layers import PACKAGE, declared, imports, inside, modules, normal
from typer.testing import CliRunner

import sam3_build
from sam3_build import __main__ as command_line
from sam3_build.commands import extras
from sam3_build.errors import BuildError

SCENE = ROOT / "manifests" / "samples" / "scene1.png"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# ------------------------------------------------------------------ the extra `build`


def test_what_is_looked_for_is_what_the_extra_brings() -> None:
    owners = packages_distributions()
    brought = {normal(owner) for name in extras.BUILD for owner in owners.get(name.partition(".")[0], [name])}
    elsewhere = {normal(owner) for owner in owners["google"]} - {"protobuf"}  # a namespace of several
    optional = {"tensorrt-rtx"}  # not for every system
    assert brought - elsewhere == declared("build") - declared() - optional
    extras.require_build()


BUILDS = (
    "plan", "explain build:decoder", "inspect x.onnx", "device", "search decoder", "gc", "localize decoder",
    "polygraphy decoder fp32 --out x", "schema",
)  # fmt: skip


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no project is needed to be told
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "torch" else find_spec(name))


def test_every_command_but_segment_and_track_is_one_that_builds() -> None:
    names = set(typer.main.get_command(command_line.app).commands)
    assert names == {words.split()[0] for words in BUILDS} | {"segment", "track"}


@pytest.mark.parametrize("words", BUILDS)
def test_a_build_command_says_in_one_line_what_to_install(no_torch: None, words: str) -> None:
    with pytest.raises(BuildError) as error:
        CliRunner().invoke(command_line.app, words.split(), catch_exceptions=False, standalone_mode=False)
    assert str(error.value) == (
        "this installation only runs what was built, for torch is missing; to build: pip install 'sam3-build[build]'"
    )


@pytest.mark.parametrize(
    "code",
    ["from doit.__main__ import main; sys.argv = ['doit', 'list']; main()",
     "from sam3_build.__main__ import main; sys.argv = ['sam3-build', 'plan']; main()"],
    ids=["doit", "sam3-build"],
)  # fmt: skip
def test_doit_and_the_command_end_with_1_and_that_line(code: str) -> None:
    blocked = "import sys; sys.modules['psutil'] = None; "
    done = subprocess.run([sys.executable, "-c", blocked + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "this installation only runs what was built, for psutil is missing; to build: pip install 'sam3-build[build]'"
    ]


# ------------------------------------------------------------------ the command


def test_the_version_is_one() -> None:
    done = CliRunner().invoke(command_line.app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"{sam3_build.__version__}\n")
    assert "version" in PROJECT["dynamic"] and (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("words", ["manifest=mine plan --json", "plan --json manifest=mine"])
def test_the_manifest_is_chosen_as_for_doit(words: str) -> None:
    environ = {"SAM3_MANIFEST": "other"}
    assert command_line._take_manifest(words.split(), environ) == ["plan", "--json"]
    assert environ == {"SAM3_MANIFEST": "mine"}


def test_the_chosen_manifest_is_planned(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "sam3_build", "manifest=sam3_mimi", "plan"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "did you mean 'sam3_mini'?" in done.stderr


# ------------------------------------------------------------------ Windows and macOS


# Modules of the standard library that Windows has not.
POSIX = frozenset({"crypt", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"})

# What runs files, beside what plug-ins and `segment` import. `building` is for those who build.
STARTS = ("__main__", "runtime.__init__", "commands.segment", "commands.track")
PLUG_INS = ("families.*.family", "families.*.prompts", "families.*.results", "families.*.loops", "backends.*")


@cache
def runs() -> frozenset[str]:
    """Return the modules that `sam3-build segment` may load: imports inside functions count."""
    queue = [*STARTS]
    for pattern in PLUG_INS:
        queue += [n for n, path in modules().items() if path.match(f"sam3_build/{pattern.replace('.', '/')}.py")]
    found: set[str] = set()
    while queue:
        name = queue.pop()
        if name in found or name == "commands.building":
            continue
        found.add(name)
        targets = [inside(i) for i in imports(modules()[name]) if not i.for_types]
        queue += [target for target in targets if target in modules()]
    return frozenset(found)


@cache
def lacks(platform: str, module: str) -> frozenset[str]:
    """Return what a module of the standard library has on Linux and not there, as the type checker's stubs say."""
    stubs = Path(mypy.__path__[0]) / "typeshed" / "stdlib"
    file = next(f for f in (stubs / module / "__init__.pyi", stubs / f"{module}.pyi") if f.is_file())
    body = ast.parse(file.read_bytes()).body
    return frozenset(defined(body, "linux")) - frozenset(defined(body, platform))


def defined(body: list[ast.stmt], platform: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.If):
            system = SimpleNamespace(platform=platform, version_info=sys.version_info)
            holds = eval(ast.unparse(node.test), {"sys": system})
            yield from defined(node.body if holds else node.orelse, platform)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            yield ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])


def test_what_other_systems_lack_is_known() -> None:
    assert {"fork", "chown", "uname", "sched_getaffinity", "O_NOFOLLOW", "pread"} <= lacks("win32", "os")
    assert "sched_getaffinity" in lacks("darwin", "os") and "chown" not in lacks("darwin", "os")
    assert not {"replace", "getpid", "open", "fsync", "O_RDONLY", "dup2", "cpu_count"} & lacks("win32", "os")
    assert {"SIGKILL", "SIGUSR1"} <= lacks("win32", "signal") and "SIGINT" not in lacks("win32", "signal")


def test_what_segments_is_known() -> None:
    assert {"runtime.model", "drawing.instances", "folders", "machine.nvidia", "manifest.paths"} <= runs()
    assert not {name for name in runs() if name.startswith(("stages", "store", "plan", "execution", "weights"))}


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_nothing_that_segments_is_of_linux_alone(platform: str) -> None:
    wrong = []
    for name in sorted(runs()):
        nodes = list(ast.walk(ast.parse(modules()[name].read_bytes())))
        guards = {ast.unparse(node) for node in nodes if isinstance(node, ast.Call)}
        if platform == "win32":
            wrong += [f"{name}:{i.line} imports {i.name}" for i in imports(modules()[name]) if i.name in POSIX]
        for node in nodes:
            module, _, attribute = ast.unparse(node).partition(".") if isinstance(node, ast.Attribute) else ("", "", "")
            guarded = f"hasattr({module}, {attribute!r})" in guards
            if module in ("os", "signal") and attribute in lacks(platform, module) and not guarded:
                wrong.append(f"{name}:{node.lineno} uses {module}.{attribute}")
    assert wrong == []


# ------------------------------------------------------------------ an environment of its own


NOT_FOUND = ("No matching distribution", "Could not find a version", "Connection", "Temporary failure")
ABSENT = ("torch", "transformers", "polygraphy", "onnx", "doit", "openvino", "scipy", "psutil")

# How much CPU time importing takes beyond numpy, and what is loaded.
PROBE = """
import sys, time
import numpy
began = time.process_time()  # a busy machine takes none of it away
import sam3_build.runtime
print(time.process_time() - began)
print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment in which `pip install .` was run."""
    folder = tmp_path_factory.mktemp("fresh")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(PACKAGE, folder / "sam3_build", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    argv = [programs / "python", "-m", "pip", "install", "--quiet", folder]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=_outside(), cwd=folder)
    if done.returncode and any(words in done.stderr for words in NOT_FOUND):
        pytest.skip(f"pip reaches no packages here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "sam3_build")
    return programs


def _outside() -> dict[str, str]:
    """Return an environment in which this checkout is not to be found."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SAM3_MANIFEST")}


def run(scripts: Path, folder: Path, program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [scripts / program, *words]
    return subprocess.run(argv, cwd=folder, env=_outside(), capture_output=True, text=True, check=False)


def finds_two(scripts: Path, folder: Path, built: Path) -> None:
    shutil.copy(SCENE, folder / "scene.png")
    done = run(scripts, folder, "sam3-build", "segment", "scene.png", "--text", "red circle", "--from", built)
    assert done.returncode == 0, done.stderr
    assert "scene.png: 2 red circle; scores 0.95, 0.98" in done.stdout
    assert (folder / "segmented" / "scene.png").is_file()


@pytest.mark.ci
def test_what_was_built_is_run_by_the_base_installation(scripts: Path, tmp_path: Path) -> None:
    listed = run(scripts, tmp_path, "python", "-m", "pip", "list", "--format=freeze").stdout
    installed = {line.partition("==")[0].lower() for line in listed.splitlines()}
    assert "sam3-build" in installed and not installed & set(ABSENT)
    finds_two(scripts, tmp_path, runnable.write(tmp_path / "moved", verdict=runnable.PASSED))
    assert run(scripts, tmp_path, "sam3-build", "--version").stdout == f"{sam3_build.__version__}\n"
    assert "segment" in run(scripts, tmp_path, "sam3-build", "--help").stdout
    refused = run(scripts, tmp_path, "sam3-build", "plan")
    assert refused.returncode == 1 and refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1 and "pip install 'sam3-build[build]'" in refused.stderr


@pytest.mark.slow
def test_a_published_folder_is_run_by_the_base_installation(scripts: Path, tmp_path: Path) -> None:
    for words in (["build", "model", "verify"], ["publish:cpu"]):
        argv = [sys.executable, "-m", "doit", *words]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    published = ROOT / "artifacts" / "sam3_mini" / "published" / "cpu"
    finds_two(scripts, tmp_path, Path(shutil.copytree(published, tmp_path / "moved")))


@pytest.mark.ci
def test_importing_the_runtime_takes_little_more_than_numpy(scripts: Path, tmp_path: Path) -> None:
    found = [run(scripts, tmp_path, "python", "-c", PROBE).stdout.splitlines() for _ in range(5)]
    assert not {"cv2", "onnxruntime", "PIL", "tokenizers", "typer"} & set(found[0][1].split())
    assert min(float(seconds) for seconds, _ in found) < 0.3
