"""The folders of ARCHITECTURE.md: who may import whom, what is never loaded for a no-op, what a file looks like."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from build_space import ROOT, copy_manifests

from sam3_build.layers import CORE, ORDER, PLUG_INS

PACKAGE = ROOT / "sam3_build"

# Too slow to import for those who only ask what is there; inside functions they are welcome.
HEAVY = frozenset(
    {
        "PIL", "cv2", "huggingface_hub", "jinja2", "ml_dtypes", "numpy", "onnx", "onnx_graphsurgeon", "onnx_ir",
        "onnxruntime", "onnxscript", "onnxsim", "polygraphy", "pynvml", "rich", "safetensors", "scipy", "tensorrt",
        "openvino", "tensorrt_rtx", "tokenizers", "torch", "transformers",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One import of a module: its full dotted name, the line, and whether it runs when the module is loaded.

    for_types: it never runs; the type checker alone reads it
    """

    name: str
    line: int
    at_load: bool
    for_types: bool


@cache
def modules() -> dict[str, Path]:
    """Return module name relative to the package -> file; empty `__init__.py` files and the version's are left out."""
    files = [path for path in PACKAGE.rglob("*.py") if path.stat().st_size and path != PACKAGE / "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(files)}


@cache
def imports(path: Path) -> tuple[Import, ...]:
    return tuple(_imports(ast.parse(path.read_bytes()), at_load=True, for_types=False))


def _imports(node: ast.AST, *, at_load: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_load, for_types) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: a relative import"
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            inside = [name for name in names if name.removeprefix("sam3_build.") in modules()]
            yield from (Import(name, child.lineno, at_load, for_types) for name in inside or [str(child.module)])
        else:
            body_runs = at_load and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            is_typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from _imports(child, at_load=body_runs and not is_typing, for_types=for_types or is_typing)


def folder(module: str) -> str:
    return module.partition(".")[0]


def position(module: str) -> int:
    return next(i for i, names in enumerate(ORDER) if folder(module) in names)


def inside(found: Import) -> str | None:
    """Return the imported module relative to the package, or None when it is of somebody else."""
    top, _, rest = found.name.partition(".")
    return rest if top == "sam3_build" and rest else None


def test_every_module_has_its_folder_in_the_list_and_in_the_description() -> None:
    listed = [name for names in ORDER for name in names]
    assert {folder(name) for name in modules()} == set(listed), "add what is new to layers.py and to ARCHITECTURE.md"
    text = (PACKAGE / "ARCHITECTURE.md").read_text()
    assert [name for name in listed if f"`{name}" not in text] == []


def test_nothing_imports_from_a_folder_below_its_own() -> None:
    upwards = [
        f"{name}:{found.line} imports {target}"
        for name, path in modules().items()
        for found in imports(path)
        if (target := inside(found)) and position(target) > position(name) and not found.for_types
    ]
    assert upwards == []


def test_plug_ins_import_the_vocabulary_their_own_folder_and_what_their_kind_may() -> None:
    wrong = [
        f"{name}:{found.line} imports {target}"
        for name, path in modules().items()
        if folder(name) in PLUG_INS
        for found in imports(path)
        if (target := inside(found))
        and folder(target) not in ("errors", "documents", "spec", "plugins", "family_code", *PLUG_INS[folder(name)])
        and not _own(name, target)
    ]
    assert wrong == []


def _own(module: str, target: str) -> bool:
    """A family or kind of result is a folder; other plug-ins are one file, and share only what begins with `_`."""
    parts, target_parts = module.split("."), target.split(".")
    if parts[0] in ("families", "results"):
        return target_parts[:2] == parts[:2]
    return target_parts[0] == parts[0] and target_parts[1].startswith("_")


def test_the_vocabulary_needs_only_the_standard_library() -> None:
    foreign = [
        f"{name}:{found.line} imports {found.name}"
        for name, path in modules().items()
        if name in ("errors", "layers", "documents", "spec", "model_format", "params", "plugins")
        for found in imports(path)
        if not (found.for_types or inside(found))
        if found.name.split(".")[0] not in {*sys.stdlib_module_names, "__future__"}
    ]
    assert foreign == []


def test_no_module_imports_a_heavy_package_when_it_is_loaded() -> None:
    heavy = [
        f"{name}:{found.line} imports {found.name}"
        for name, path in modules().items()
        for found in imports(path)
        if found.at_load and found.name.split(".")[0] in HEAVY
    ]
    assert heavy == []


def test_only_what_builds_engines_and_what_writes_files_for_polygraphy_imports_it() -> None:
    """What was built is run by sessions of our own, so that an installation that only runs needs none of it."""
    users = {n for n, path in modules().items() if "polygraphy" in {i.name.split(".")[0] for i in imports(path)}}
    builders = {"backends._tensorrt", "backends.tensorrt", "backends.tensorrt_rtx"}
    assert users == builders | {"diagnose.polygraphy_files"}


# What a run that finds everything fresh has no use for: each costs it a millisecond or more.
UNUSED = frozenset(
    {
        "email.parser", "platform", "secrets", "sam3_build.compare.instances", "sam3_build.compare.statistics",
        "sam3_build.diagnose", "sam3_build.drawing.overlay", "sam3_build.execution.worker", "sam3_build.graph.casts",
        "sam3_build.graph.gemms", "sam3_build.graph.keep_fp32", "sam3_build.manifest.shape", "sam3_build.publish",
        "sam3_build.report.html", "sam3_build.report.table", "sam3_build.report.tables", "sam3_build.stages._networks",
        "sam3_build.torch_modules", "sam3_build.weights.inventory",
    }
)  # fmt: skip


def test_learning_that_everything_is_fresh_loads_nothing_that_only_runs_and_reports_need(tmp_path: Path) -> None:
    code = f"""
import json, sys
from pathlib import Path
from sam3_build.commands import doit_tasks
from sam3_build.execution import session
opened = session.open_session(Path({str(tmp_path)!r}), None, {{}})
tasks = list(doit_tasks.tasks(opened, {{}}))
assert len(tasks) > len(opened.plan.actions) > 30
for action in opened.plan.actions:
    opened.resolver.resolve(action.name)
    list(map(opened.resolver._version, action.tools))
print(json.dumps(sorted(sys.modules)))
"""
    copy_manifests(tmp_path)
    for _ in range(2):  # the first checks the manifest, asks libraries for their devices, and remembers both
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()
    assert loaded & UNUSED == set()
    assert {"sam3_build.stages.verify", "sam3_build.backends.tensorrt_rtx"} <= loaded


def test_stages_and_plug_ins_start_no_processes() -> None:
    """A worker is killed with its parent; nobody would kill what it started."""
    starters = {"subprocess", "multiprocessing", "concurrent"}
    found = [
        f"{name}:{i.line} imports {i.name}"
        for name, path in modules().items()
        if folder(name) in {*PLUG_INS, "stages", "compare"}
        for i in imports(path)
        if i.name.split(".")[0] in starters
    ]
    assert found == []


def test_only_the_store_and_its_kin_know_how_artifacts_are_written() -> None:
    """Stages get a folder; the store, the view and the session decide where things lie."""
    kin = ("store.objects", "store.view", "store.writing")
    users = {name for name, path in modules().items() if any(inside(i) in kin for i in imports(path))}
    writers = {
        "store.objects",
        "store.view",
        "publish.folder",
        "store.ownership",
        "execution.session",
        "execution.local",
        "report.table",
        "report.file_verdicts",
        "report.html.page",
        "commands.gc",
        "publish.targets",
        "diagnose.search",
        "diagnose.polygraphy_files",
    }
    readers = {
        "execution.refused",
        "publish.nights",
        "publish.nightly",
        "store.resolve",
        "store.explain",
        "commands.plan_text",
        "publish.card",
        "publish.content",
        "publish.items",
        "publish.lineage",
        "publish.checks",
        "report.html.artifacts",
        "report.html.sources",
        "diagnose.trials",
    }
    assert users == writers | readers | {"diagnose.localize"}


# ------------------------------------------------------------------ what is imported is declared


@cache
def distributions() -> Mapping[str, list[str]]:
    """Return top-level package -> the distributions that bring it."""
    return packages_distributions()


def declared(*extras: str) -> set[str]:
    """Return the distributions that pyproject.toml asks for, with those of some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines, queue = list(project["dependencies"]), list(extras)
    while queue:
        for line in project["optional-dependencies"][queue.pop()]:
            of_ours = re.match(r"sam3-build\[([\w,-]+)\]", line)
            queue += of_ours[1].split(",") if of_ours else []
            lines += [] if of_ours else [line]
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in lines}  # type: ignore[index]


@pytest.mark.parametrize(
    ("place", "extras"),
    [
        ("sam3_build", ("build", "openvino", "supervision", "video")),
        ("dodo.py", ("build",)),
        ("manifests", ()),
        ("docs", ("video",)),
        ("training", ("train",)),
        ("tests", ("dev",)),
        ("benchmarks", ("benchmark", "dev")),
    ],
)
def test_every_package_that_is_imported_is_declared(place: str, extras: tuple[str, ...]) -> None:
    """Else it is there only because another package wants it, and may go with the next version of that one."""
    files = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    # These record what others' code computes, and say where that is to be had.
    files = [file for file in files if not file.name.startswith("record_")]
    ours = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"sam3_build", "training", "tests"}
    owners, wanted = distributions(), declared(*extras)
    installed = {normal(name) for names in owners.values() for name in names}
    wanted |= {normal(name) for tool in wanted & installed for name in pinned(tool)}
    missing = {
        f"{path.relative_to(ROOT)}:{found.line} imports {found.name}"
        for path in files
        for found in imports(path)
        if (package := found.name.split(".")[0]) not in {*sys.stdlib_module_names, "__future__", *ours}
        if not {normal(owner) for owner in owners.get(package, [package])} & wanted
    }
    assert sorted(missing) == []


# ------------------------------------------------------------------ keys cover what is used


# What a stage imports without its outputs depending on it.
UNCOVERED = {
    ("build", "onnx"): "reads the names and dims of a graph's inputs; an upgrade must not rebuild every engine",
    ("weights.finite", "numpy"): "masks the bits of exponents, which every version does alike",
    ("pipeline.clips", "av"): "reads video files, and is a tool of actions whose samples have one",
    ("weights.hub", "httpx2"): "fetches files, of which the inventory of tensors is made, and it digests these",
    ("weights.hub", "huggingface_hub"): "the same",
    ("weights.download", "httpx2"): "the same",
    ("weights.download", "huggingface_hub"): "the same",
}


def plans() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return action -> (recipe, tools) of the default manifest, and of a search in it."""
    from sam3_build.execution import session
    from sam3_build.plan import search

    found = session.open_session(ROOT, None, {"SAM3_STORE": "/nonexistent"}).plan
    tried = (
        search.ranges(found, "decoder", "fp16", None),
        search.trial(found, found.action("compare:fp16"), ["precision:decoder.fp16"]),
    )
    return {action.name: (action.recipe, action.tools) for action in (*found.actions, *tried)}


def third_party(recipe: dict[str, str]) -> dict[str, str]:
    """Return top-level package -> the module that imports it, over the modules of a recipe."""
    return {
        found.name.split(".")[0]: f"{name}:{found.line}"
        for name in recipe
        if name in modules()
        for found in imports(modules()[name])
        if not (found.for_types or inside(found))
        if found.name.split(".")[0] not in {*sys.stdlib_module_names, "__future__", "sam3_build"}
    }


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def pinned(tool: str) -> set[str]:
    """Return what a distribution requires in one exact version: its own version then stands for theirs."""
    return {requirement.partition("==")[0] for requirement in requires(tool) or () if "==" in requirement.split(";")[0]}


def test_the_key_of_an_action_covers_every_package_that_its_code_imports() -> None:
    """Else an upgrade of that package would leave its outputs fresh."""
    from sam3_build.digest import DigestCache

    digests, owners = DigestCache(Path("/nonexistent")), distributions()
    missing = set()
    for name, (recipe, tools) in plans().items():
        stage = name.partition(":")[0]
        covered = {normal(tool) for tool in tools} | {normal(d) for tool in tools for d in pinned(tool)}
        for package, where in third_party(digests.recipe(recipe)).items():
            owned_by = {normal(owner) for owner in owners.get(package, [package])}
            if not owned_by & covered and not UNCOVERED.keys() & {(stage, package), (where.partition(":")[0], package)}:
                missing.add(f"{stage}: {where} imports {package}")
    assert sorted(missing) == []


# What stages, plug-ins and what these import take from the core, which no key covers, and why that decides no output.
NAMES = "only a type, or a name that messages and facts use"
FROM_CORE = {
    "digest.canonical": "the JSON of small lists; keys are made with it, so that KEY_VERSION stands for it",
    "digest.digest": "the digest of a graph's structure; the same",
    "documents.Json": NAMES,
    "documents.document_of": "the JSON of the list of cases; the same as canonical",
    "documents.value_of": "decodes a sample's prompts, which are in the key, into a dataclass of the family's recipe",
    "digest.file_digest": "the sha256 of a download, which the manifest and so the key has",
    "errors": "words of errors, and errors keep nothing",
    "family_code": NAMES,
    "folders.make_folder": "makes the folder of a download, whose bytes are verified",
    "folders.share": "who may read a download",
    "folders.write_atomically": "how a timing cache is written, which only saves time",
    "model_format": "types, and the names of files; a change of its text raises FORMAT, which the stage's code names",
    "machine.gpu": "asks which GPU is here; the key has it",
    "machine.locks": "who downloads a file, and who waits",
    "machine.nvidia": "asks for free memory, which bounds TensorRT's workspace and enters no key on purpose",
    "params": "the parameters of an action, as its key holds them; test_params pins defaults and file stems",
    "plugins": NAMES,
    "registry": "finds a plug-in by its name, and the recipe of the action names its module",
    "spec": NAMES,
}

# What the core's vocabulary does beside naming things: of these, what an output could depend on must not be used.
PLANNING_PROPERTIES = {"gemm_types", "symbolic_dims"}
PLANNING_METHODS = {"laid_out", "row_dim", "before", "network", "label"}


def test_what_decides_an_output_is_not_in_the_core() -> None:
    taken = {
        f"{node.module}.{alias.name}".removeprefix("sam3_build.")
        for name, path in modules().items()
        if folder(name) not in CORE
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sam3_build")
        for alias in node.names
        if folder(f"{node.module}.{alias.name}".removeprefix("sam3_build.")) in CORE
    }
    reasons = {name: [entry for entry in FROM_CORE if f"{name}.".startswith(f"{entry}.")] for name in taken}
    assert [name for name, found in reasons.items() if not found] == [], "move it out of the core, or say why not"
    assert FROM_CORE.keys() - {entry for found in reasons.values() for entry in found} == set(), "nothing takes these"


def test_a_recipe_names_the_parts_of_a_familys_code_that_its_stage_uses_and_no_others() -> None:
    """Else a change of a part would leave outputs fresh, or rerun what does not use it."""
    from sam3_build.digest import DigestCache
    from sam3_build.registry import code_modules

    parts = {part: part for part in ("family", "keys", "modules", "prompts", "results")} | {"loop": "loops"}
    digests, wrong = DigestCache(Path("/nonexistent")), []
    for name, (recipe, _) in plans().items():
        used = {
            part
            for module in digests.recipe(recipe)
            for node in ast.walk(ast.parse(modules()[module].read_bytes()))
            if isinstance(node, ast.Attribute) and node.attr in parts and ast.unparse(node.value) == "code"
            for part in code_modules("sam3_image", parts[node.attr])
        }
        named = {module for module in recipe if module.startswith("families.")}
        if used and used != named:
            wrong.append(f"{name}: uses {sorted(used)}, and its recipe names {sorted(named)}")
    assert wrong == []


def test_stages_use_nothing_of_the_vocabulary_that_only_a_plan_may_use() -> None:
    stages = {name: path for name, path in modules().items() if folder(name) in ("stages", "graph", "pipeline")}
    used = {
        (name, attribute.attr)
        for name, path in stages.items()
        for node in ast.walk(ast.parse(path.read_bytes()))
        for attribute, among in ((node, PLANNING_PROPERTIES), (getattr(node, "func", None), PLANNING_METHODS))
        if isinstance(attribute, ast.Attribute) and attribute.attr in among
    }
    assert used <= {("graph.gemms", "gemm_types")}, "its own function of that name, in keep_fp32"


def test_every_declared_tool_is_a_distribution_that_is_installed() -> None:
    from sam3_build.machine.toolchain import version

    tools = {tool for _, tools in plans().values() for tool in tools}
    assert {tool for tool in tools if version(tool) == "absent"} == set()


# ------------------------------------------------------------------ what a file looks like


@pytest.mark.parametrize("path", modules().values(), ids=modules().keys())
def test_a_module_begins_with_a_line_that_says_what_it_is_and_stays_short(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring and docstring.splitlines()[0].endswith((".", ":", "!")), "the first line is one sentence or more"
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 500


def test_no_package_file_runs_code() -> None:
    """The runtime alone is imported by users, and names there what they use; the package has its version."""
    top, own = PACKAGE / "__init__.py", PACKAGE / "runtime" / "__init__.py"
    assert [path for path in PACKAGE.rglob("__init__.py") if path.stat().st_size and path not in (top, own)] == []
    body = ast.parse(own.read_bytes()).body[1:]
    assert all(isinstance(node, ast.ImportFrom) for node in body)
    (version,) = ast.parse(top.read_bytes()).body[1:]
    assert isinstance(version, ast.Assign) and ast.unparse(version.targets[0]) == "__version__"


def test_the_front_end_file_stays_under_forty_lines_and_decides_nothing() -> None:
    text = (ROOT / "dodo.py").read_text()
    assert len(text.splitlines()) < 40
    branches = ast.If | ast.For | ast.While | ast.Try | ast.IfExp
    assert [node for node in ast.walk(ast.parse(text)) if isinstance(node, branches)] == []


def test_names_say_what_is_inside() -> None:
    empty = re.compile(r"utils?|helpers?|common|misc|managers?")
    names = [part for name in modules() for part in name.split(".")]
    assert [name for name in names if empty.fullmatch(name)] == []


def test_nothing_kept_in_the_repository_names_a_place_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    place = re.compile(rb"/(home|Users|root)/\w|/work/\w")
    files = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    texts = [path for path in files if path.is_file() and path.name != Path(__file__).name]
    assert [str(path.relative_to(ROOT)) for path in texts if place.search(path.read_bytes())] == []


def test_an_installed_package_has_the_files_that_are_no_python() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    covered = {
        path for name, globs in listed.items() for g in globs for path in (ROOT / name.replace(".", "/")).glob(g)
    }
    others = {p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc", ".md")}
    assert others == covered
