"""`doit publish`: only files whose own bytes passed, whole folders, cards that tell the truth; and what was planted."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from build_space import BuildSpace
from gpus import READINGS
from test_device_in_doit import HERE, plug_in

from sam3_build.documents import Params
from sam3_build.publish.items import Item
from sam3_build.publish.reasons import Reason
from sam3_build.publish.targets import _must_go
from sam3_build.spec import Action

MANIFEST = "manifests/toy.yaml"
ADA = '{backend: tensorrt_rtx, compute_capabilities: ["8.9"]}'
NO_GPU = "not run: running TensorRT-RTX engines needs a CUDA GPU; none found on this machine\n"
# Engines of FP32 differ from the graph, and nothing else does.
ENGINES_FAIL = ("sam3_build/stages/verify.py", 'wrong = "wrong" in', 'wrong = "backend" in params or "wrong" in')
GRAPHS_FAIL = (
    "sam3_build/stages/verify.py",
    'wrong = "wrong" in',
    'wrong = "head" in params["component"] or "wrong" in',
)


def on_an_rtx_4090(built: BuildSpace, root: Path) -> BuildSpace:
    """Return a copy of the built project on a machine that runs the engines of the target `ada`."""
    space = built.copy(root)
    shutil.copy(HERE / "toy_gpu" / "nvidia.py", space.root / "sam3_build" / "machine" / "nvidia.py")
    plug_in(space, READINGS["rtx_4090"])
    space.build()
    return space


@pytest.fixture(scope="module")
def built_with_gpu(built: BuildSpace, tmp_path_factory: pytest.TempPathFactory) -> BuildSpace:
    """The project on a machine with that GPU. Only read."""
    return on_an_rtx_4090(built, tmp_path_factory.mktemp("gpu") / "project")


@pytest.fixture
def gpu(built_with_gpu: BuildSpace, tmp_path: Path) -> BuildSpace:
    """A copy of that project, to change."""
    return built_with_gpu.copy(tmp_path / "project")


def folder_of(space: BuildSpace, target: str) -> Path:
    return space.view / "published" / target


def names(space: BuildSpace, target: str) -> set[str]:
    return {path.name for path in folder_of(space, target).iterdir()} if folder_of(space, target).exists() else set()


def card(space: BuildSpace, name: str, target: str = "ada") -> str:
    return (folder_of(space, target) / f"{name}.md").read_text()


def state(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return what any write below a folder would change."""
    return {p: (s.st_ino, s.st_mtime_ns, s.st_size) for p in [folder, *folder.rglob("*")] if (s := p.stat())}


def checked(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)


ENGINES = {f"{stem}.ada.engine" for stem in ("encoder.fp32", "encoder.fp16", "head.fp32", "head.fp16")}
ALL_OF_ADA = {"SHA256SUMS", *ENGINES, *(f"{e}.json" for e in ENGINES), *(f"{e[:-7]}.md" for e in ENGINES)}


# ------------------------------------------------------------------ what passed


def test_what_passed_is_published_with_cards_and_sums_and_what_was_not_run_is_refused(space: BuildSpace) -> None:
    run = space.doit("publish")
    assert run.code == 1, run.output
    assert "  published  cpu         4 graphs, " in run.output
    assert f"refused: ada\n  {NO_GPU}    encoder.fp32, encoder.fp16, head.fp32, head.fp16\n" in run.output
    assert "write `allow_unverified: true` in the target" in run.output and "Traceback" not in run.output
    done = checked(folder_of(space, "cpu"))
    assert (done.returncode, done.stdout.count(": OK")) == (0, 12), done.stdout + done.stderr
    published = folder_of(space, "cpu") / "head.fp16.onnx"
    assert published.read_bytes() == (space.view / "head/head.fp16.onnx").read_bytes()
    assert not folder_of(space, "ada").exists()
    cards = {p: (folder_of(space, "cpu") / f"head.{p}.md").read_text() for p in ("fp32", "fp16")}
    assert [p for p, text in cards.items() if "opened this very file and did not run it" in text] == ["fp16"]
    assert space.doit("publish:cpu").code == 0
    assert "built" not in run.output, "publishing builds nothing, and says nothing of building"


def test_publishing_again_writes_nothing(gpu: BuildSpace) -> None:
    first = gpu.build("publish")
    assert first.output.count("  published  ") == 2, first.output
    before = state(gpu.view / "published")
    again = gpu.build("publish")
    assert again.output.count("  unchanged  ") == 2, again.output
    assert state(gpu.view / "published") == before


def test_an_engine_that_ran_is_published_and_its_card_tells_what_a_user_must_know(gpu: BuildSpace) -> None:
    gpu.build("publish:ada")
    assert names(gpu, "ada") == ALL_OF_ADA
    text, engine = card(gpu, "head.fp16.ada"), folder_of(gpu, "ada") / "head.fp16.ada.engine"
    record = json.loads((folder_of(gpu, "ada") / "head.fp16.ada.engine.json").read_bytes())
    inventory = json.loads(gpu.record("checkpoint").read_bytes())["files"]["head.json"]["sha256"]
    digest = subprocess.run(["sha256sum", engine], capture_output=True, text=True, check=True).stdout.split()[0]
    for words in (
        "TensorRT-RTX engine of `head`",
        f"| sha256 | `{digest}` |",
        f"inventory `{inventory}` |",
        "| weights | the file weights.safetensors |",
        f"| key | `{record['key']}` |",
        "| tools | polygraphy ",
        "name NVIDIA GeForce RTX 4090",
        "| pass | onnxruntime fp32 vs ada fp16 (engine parity) | head | z | cosine | 0.99999 | >= 0.99 |",
        "| pass | pytorch fp32 vs onnxruntime fp32 | head.fp32 |",
        "| 8.9 | NVIDIA GeForce RTX 4090, driver 580.65.06 |",
        "doit manifest=toy build:head.fp16.ada",
        "Apache-2.0",
    ):
        assert words in text, text
    assert "UNVERIFIED" not in text


def test_card_and_page_of_a_manifest_elsewhere_call_it_by_its_path_from_the_checkout(space: BuildSpace) -> None:
    (space.root / "mine").mkdir()
    (space.root / "mine/other.yaml").write_text("extends: ../manifests/toy.yaml\n")
    assert space.build(f"manifest={space.root}/mine/other.yaml").built == set()
    space.build("manifest=mine/other.yaml", "publish:cpu")
    made = space.artifacts / "other"
    text = (made / "published/cpu/head.fp16.md").read_text()
    assert "    doit manifest=mine/other.yaml precision:head.fp16\n    doit manifest=mine/other.yaml verify\n" in text
    page = (made / "report.html").read_text()
    assert "doit manifest=mine/other.yaml verify" in page and str(space.root) not in page + text


def test_what_is_not_built_or_not_compared_is_refused_with_the_command_that_makes_it(fresh: BuildSpace) -> None:
    run = fresh.doit("publish")
    assert run.code == 1 and "missing: not built from the present inputs: run `doit build`" in run.output, run.output
    assert "Traceback" not in run.output and not (fresh.view / "published").exists()
    fresh.build("build")
    run = fresh.doit("publish:cpu")
    assert run.code == 1 and "missing: not compared since its inputs changed: run `doit verify`" in run.output, (
        run.output
    )
    assert "failed" not in run.output.replace("FAILED", ""), "what was not measured has not failed"
    fresh.build("verify")
    fresh.build("publish:cpu")


# ------------------------------------------------------------------ what failed


def test_an_engine_that_fails_is_refused_and_other_targets_are_published(gpu: BuildSpace) -> None:
    gpu.edit(*ENGINES_FAIL)
    assert gpu.doit("verify").code == 1
    run = gpu.doit("publish")
    assert run.code == 1 and "  published  cpu " in run.output, run.output
    assert "refused: ada\n" in run.output
    assert "failed: z: max_abs_over_std is 1, not <= 0.001\n    head.fp32\n" in run.output
    assert 'not judged: depends on head.fp32.ada, which failed in "onnxruntime fp32 vs ada fp32' in run.output
    assert "head.fp16" in run.output and not folder_of(gpu, "ada").exists()


def test_allow_unverified_excuses_nothing_that_failed(gpu: BuildSpace) -> None:
    gpu.edit(*ENGINES_FAIL)
    gpu.edit(MANIFEST, ADA, ADA[:-1] + ", allow_unverified: true}")
    gpu.doit("verify")
    run = gpu.doit("publish:ada")
    assert run.code == 1 and "failed: z: max_abs_over_std" in run.output and not folder_of(gpu, "ada").exists()


def test_an_engine_that_cannot_run_here_is_not_published_when_its_graph_fails(space: BuildSpace) -> None:
    space.edit(MANIFEST, ADA, ADA[:-1] + ", allow_unverified: true}")
    space.edit(*GRAPHS_FAIL)
    assert space.doit("verify").code == 1
    run = space.doit("publish:ada")
    assert run.code == 1, run.output
    assert "not judged: depends on head.fp32, which failed in" in run.output and not folder_of(space, "ada").exists()


def test_a_precision_that_fails_is_withheld_and_the_others_are_published(space: BuildSpace) -> None:
    space.build("publish:cpu")
    space.edit(
        "sam3_build/stages/verify.py", '"cosine": 0.99999', '"cosine": 0.5 if "fp16" in str(params) else 0.99999'
    )
    assert space.doit("verify").code == 1
    run = space.doit("publish:cpu")
    assert run.code == 1 and "  published  cpu         2 graphs, " in run.output, run.output
    assert "withheld: fp16 of cpu\n  failed: " in run.output
    assert {name for name in names(space, "cpu") if name.endswith(".onnx")} == {"encoder.fp32.onnx", "head.fp32.onnx"}
    assert checked(folder_of(space, "cpu")).returncode == 0


def test_a_precision_that_is_only_not_built_yet_is_not_taken_out_of_what_was_published(space: BuildSpace) -> None:
    space.build("publish:cpu")
    before = state(folder_of(space, "cpu"))
    space.edit(MANIFEST, '["*norm*"]', '["*norm*", "*fold*"]')
    run = space.doit("publish:cpu")
    assert run.code == 1 and "refused: cpu\n" in run.output and "stays as it was published" in run.output, run.output
    assert state(folder_of(space, "cpu")) == before


def test_a_target_is_published_in_the_precisions_that_it_lists_and_no_others(space: BuildSpace) -> None:
    space.edit(MANIFEST, "cpu: {backend: onnxruntime}", "cpu: {backend: onnxruntime, precisions: [fp32]}")
    run = space.build("publish:cpu")
    assert "  published  cpu         2 graphs, " in run.output
    assert not any("fp16" in name for name in names(space, "cpu"))


@pytest.mark.parametrize(("edit", "stays"), [(GRAPHS_FAIL, False), (None, True)], ids=["the same bytes", "other bytes"])
def test_what_was_published_is_withdrawn_when_its_own_bytes_fail_and_stays_when_others_do(
    space: BuildSpace, edit: tuple[str, str, str] | None, stays: bool
) -> None:
    space.build("publish:cpu")
    before = state(folder_of(space, "cpu"))
    space.edit(*(edit or ("sam3_build/families/toy/modules.py", "z = y @ p", "z = wrong")))
    assert space.doit().code == 1
    run = space.doit("publish:cpu")
    assert run.code == 1 and ("refused: cpu" if stays else "withdrawn: cpu") in run.output, run.output
    if stays:
        assert "artifacts/toy/published/cpu stays as it was published before" in run.output
        assert state(folder_of(space, "cpu")) == before
    else:
        assert "artifacts/toy/published/cpu held these very bytes and was removed" in run.output
        assert list((space.view / "published").iterdir()) == []


def test_engines_go_when_the_graph_that_they_were_built_from_fails(gpu: BuildSpace) -> None:
    gpu.build("publish:ada")
    gpu.edit(*GRAPHS_FAIL)
    gpu.doit("verify")
    run = gpu.doit("publish:ada")
    assert run.code == 1 and "withdrawn: ada" in run.output and not folder_of(gpu, "ada").exists(), run.output


@pytest.mark.parametrize("text", [None, "not a list of digests"], ids=["gone", "damaged"])
def test_bytes_that_fail_go_even_when_the_list_of_their_digests_does_not_tell_of_them(
    space: BuildSpace, text: str | None
) -> None:
    space.build("publish:cpu")
    sums = folder_of(space, "cpu") / "SHA256SUMS"
    sums.unlink()
    if text is not None:
        sums.write_text(text)
    space.edit(*GRAPHS_FAIL)
    assert space.doit("verify").code == 1
    run = space.doit("publish:cpu")
    assert run.code == 1 and "withdrawn: cpu" in run.output and not folder_of(space, "cpu").exists(), run.output


ITEMS = [
    Item(component, precision, ("pipeline",), action, action, action, (), ())
    for component in ("encoder", "decoder")
    for precision in ("fp32", "fp16")
    for action in (Action(f"build:{component}.{precision}.ada", "build", Params(), (), ()),)
]
OTHERS = {"decoder.fp16", "encoder.fp32", "encoder.fp16"}
ALL = {*OTHERS, "decoder.fp32"}


@pytest.mark.parametrize(
    ("kind", "what", "published", "goes"),
    [
        ("failed", "decoder.fp32", {"decoder.fp32"}, True),
        ("failed", "decoder.fp32", OTHERS, False),
        ("not judged", "decoder.fp16", ALL, True),
        ("not judged", "decoder.fp16", OTHERS, False),
        ("not judged", "decoder.fp16", {"decoder.fp16", "decoder.fp32"}, True),
        ("failed", "pipeline.fp16", ALL, True),
        ("failed", "pipeline.fp16", OTHERS, False),
        ("not judged", "pipeline.fp16", OTHERS, False),
        ("not run", "decoder.fp32", ALL, False),
        ("missing", "decoder.fp32", ALL, False),
        ("foreign", "decoder.fp32", ALL, False),
    ],
)
def test_a_folder_goes_only_for_what_is_known_of_its_own_bytes(
    kind: str, what: str, published: set[str], goes: bool
) -> None:
    """A new encoder that fails spoils the pipeline, and says nothing of the encoder that was published."""
    assert _must_go(ITEMS, lambda item: item.name in published, [Reason(kind, what, "why")]) == goes


def test_what_is_only_not_built_any_more_leaves_what_was_published(gpu: BuildSpace) -> None:
    gpu.build("publish")
    gpu.edit(MANIFEST, "opset: 20", "opset: 19")
    run = gpu.doit("publish")
    assert run.code == 1 and run.output.count("missing: not built") == 2, run.output
    assert names(gpu, "ada") == ALL_OF_ADA and names(gpu, "cpu")


# ------------------------------------------------------------------ what was not run


def test_what_was_not_run_is_published_when_the_target_allows_it_and_says_so_in_so_many_words(
    space: BuildSpace,
) -> None:
    space.edit(MANIFEST, ADA, ADA[:-1] + ", allow_unverified: true}")
    run = space.build("publish")
    assert "  published  ada         4 engines, " in run.output and ", UNVERIFIED: artifacts" in run.output
    assert names(space, "ada") == ALL_OF_ADA
    for engine in ENGINES:
        text = card(space, engine.removesuffix(".engine"))
        assert "**UNVERIFIED: nobody has shown that this file computes what it should." in text
        assert f"* {NO_GPU}" in text and "| not run | onnxruntime fp32 vs ada" in text
        assert "| 8.9 | UNVERIFIED: not run |" in text
    assert "UNVERIFIED" not in card(space, "head.fp16", "cpu")
    again = space.build("publish")
    assert "  unchanged  ada         4 engines, " in again.output and "UNVERIFIED" in again.output


def test_a_verified_engine_is_not_made_unverified_by_a_machine_that_cannot_run_it(gpu: BuildSpace) -> None:
    gpu.edit(MANIFEST, ADA, ADA[:-1] + ", allow_unverified: true}")
    gpu.build("publish")
    before = state(folder_of(gpu, "ada"))
    plug_in(gpu, None)
    run = gpu.build("publish:ada")
    assert "  kept       ada " in run.output and "UNVERIFIED" not in run.output, run.output
    assert state(folder_of(gpu, "ada")) == before


def test_an_engine_for_several_generations_needs_to_have_run_on_each(gpu: BuildSpace) -> None:
    gpu.edit(MANIFEST, '["8.9"]', '["8.6", "8.9"]')
    gpu.build()
    run = gpu.doit("publish:ada")
    words = "not run: it has kernels of their own for compute capability 8.6, which did not run here; make one"
    assert run.code == 1 and words in run.output and "do what that says, or write `allow_unverified: " in run.output
    gpu.edit(MANIFEST, '["8.6", "8.9"]', '["8.6", "8.9"], allow_unverified: true')
    gpu.build("publish:ada")
    text = card(gpu, "head.fp16.ada")
    assert "| 8.6 | UNVERIFIED: not run |" in text and "| 8.9 | NVIDIA GeForce RTX 4090, driver" in text
    assert "**UNVERIFIED: " in text


def test_without_the_component_that_finds_things_nothing_is_published_on_tensors_alone(fresh: BuildSpace) -> None:
    steps = '(Step("encoder"), Step("head", (Feed("y", (("encoder", "y"),)),)))'
    fresh.edit("sam3_build/families/toy/family.py", steps, f"{steps}, 'instances'")
    fresh.edit(MANIFEST, '\n  head: {precisions: {fp16: {keep_fp32: ["*norm*"]}}}', "")
    fresh.edit(MANIFEST, "tolerances: {fp16: {head: {z: {cosine: 0.99}}}}", "")
    fresh.build()
    run = fresh.doit("publish:cpu")
    words = "not run: nothing judges its results: the manifest does not build head pipeline.fp32,"
    assert run.code == 1 and words in said(run.output) and not folder_of(fresh, "cpu").exists(), run.output
    fresh.edit(MANIFEST, "{backend: onnxruntime}", "{backend: onnxruntime, allow_unverified: true}")
    run = fresh.build("publish:cpu")
    assert ", UNVERIFIED: artifacts" in run.output, run.output
    assert "**UNVERIFIED: nobody has shown" in card(fresh, "encoder.fp16", "cpu")


# ------------------------------------------------------------------ what was planted


def test_bytes_that_were_changed_in_the_folder_are_restored_and_said(gpu: BuildSpace) -> None:
    gpu.build("publish:ada")
    engine = folder_of(gpu, "ada") / "head.fp16.ada.engine"
    good = engine.read_bytes()
    engine.chmod(0o644)
    engine.write_bytes(b"something else")
    (folder_of(gpu, "ada") / "note.txt").write_text("mine")
    assert checked(folder_of(gpu, "ada")).returncode == 1
    run = gpu.build("publish:ada")
    assert "restored head.fp16.ada.engine, note.txt: not as SHA256SUMS lists it" in run.output
    assert engine.read_bytes() == good and names(gpu, "ada") == ALL_OF_ADA
    assert checked(folder_of(gpu, "ada")).returncode == 0


def test_changed_bytes_of_a_target_that_is_refused_are_told_too(gpu: BuildSpace) -> None:
    gpu.build("publish:ada")
    engine = folder_of(gpu, "ada") / "head.fp16.ada.engine"
    engine.chmod(0o644)
    engine.write_bytes(b"something else")
    plug_in(gpu, None)
    run = gpu.doit("publish:ada")
    assert run.code == 1 and " ".join(run.output.split()).count(
        "head.fp16.ada.engine is not what was published, and is not verified"
    ), run.output


def said(output: str) -> str:
    return " ".join(output.split())


def test_an_engine_of_unknown_origin_in_the_view_is_refused(gpu: BuildSpace) -> None:
    engine = gpu.view / "head/head.fp16.ada.engine"
    engine.chmod(0o644)
    engine.write_bytes(b"from a forum")
    run = gpu.doit("publish:ada")
    assert run.code == 1, run.output
    assert "head.fp16.ada.engine is of unknown origin: its sha256 is " in said(run.output)
    assert "`doit build:head.fp16.ada` restores it" in said(run.output) and not folder_of(gpu, "ada").exists()
    assert gpu.build("build:head.fp16.ada").restored == {"build:head.fp16.ada"}
    gpu.build("publish:ada")


def test_an_engine_of_other_weights_is_refused_and_both_inventories_are_named(gpu: BuildSpace) -> None:
    """The same names, profiles, code and tools: only the records tell that its tensors are not this manifest's."""
    text = (gpu.root / MANIFEST).read_text()
    (gpu.root / "manifests/tuned.yaml").write_text(text.replace("weights.safetensors", "tuned.safetensors"))
    (gpu.root / "manifests/tuned.safetensors").write_text('{"encoder.w": 1, "encoder.b": 2, "head.w": 4}')
    gpu.build("manifest=tuned", "build:head.fp16.ada")
    inventories = {
        name: json.loads(file.read_bytes())["files"]["head.json"]["sha256"][:12]
        for name, file in {
            manifest: gpu.store / "records" / key[:2] / f"{key}.json"
            for manifest in ("toy", "tuned")
            for history in gpu.store.glob(f"names/*/{manifest}/checkpoint.json")
            for key in json.loads(history.read_bytes())[:1]
        }.items()
    }
    assert len(set(inventories.values())) == 2
    for name in ("head.fp16.ada.engine", "head.fp16.ada.engine.json"):
        (gpu.view / "head" / name).unlink()
        shutil.copy(gpu.artifacts / "tuned/head" / name, gpu.view / "head" / name)
    run = gpu.doit("publish:ada")
    assert run.code == 1, run.output
    theirs, ours = inventories["tuned"], inventories["toy"]
    words = f"was made from other weights: their inventory is {theirs}, this manifest's is {ours}"
    assert words in said(run.output) and not folder_of(gpu, "ada").exists(), run.output


def forge(space: BuildSpace, action: str, role: str) -> None:
    """Make an action's record claim that another input was read."""
    file = space.record(action)
    record = json.loads(file.read_bytes())
    record["document"]["inputs"][role] = "0" * 64
    file.chmod(0o644)
    file.write_text(json.dumps(record))


def test_a_verdict_on_other_bytes_is_refused(gpu: BuildSpace) -> None:
    forge(gpu, "verify:head.fp16.ada", "built")
    run = gpu.doit("publish:ada")
    assert run.code == 1, run.output
    assert "foreign: verify:head.fp16.ada measured something else" in said(run.output), run.output
    assert not folder_of(gpu, "ada").exists()


def test_an_engine_whose_records_lead_to_other_weights_is_refused(gpu: BuildSpace) -> None:
    inventory = json.loads(gpu.record("checkpoint").read_bytes())["files"]["head.json"]["sha256"]
    forge(gpu, "export:head", "tensors")
    run = gpu.doit("publish")
    words = f"was made from other weights: their inventory is 000000000000, not {inventory[:12]} head.fp32, head.fp16"
    assert run.code == 1 and f"refused: cpu, ada foreign: {words}" in said(run.output), run.output
    assert not (gpu.view / "published").exists()


def test_a_graph_that_was_made_from_another_one_is_refused(gpu: BuildSpace) -> None:
    forge(gpu, "precision:head.fp16", "onnx")
    run = gpu.doit("publish:cpu")
    words = "foreign: what precision:head.fp16 reads as onnx was 000000000000, and is "
    assert run.code == 1 and words in said(run.output), run.output


# ------------------------------------------------------------------ disks and killed runs


def test_a_folder_that_cannot_be_written_is_one_clear_error(space: BuildSpace) -> None:
    space.view.joinpath("published").write_text("a file where a folder belongs")
    run = space.doit("publish:cpu")
    assert run.code == 1 and "artifacts/toy/published" in run.output and "Traceback" not in run.output, run.output


def test_the_licence_that_lies_beside_the_weights_is_published_and_its_absence_said(space: BuildSpace) -> None:
    space.doit("publish:cpu")
    assert "No licence lay beside the weights." in card(space, "head.fp32", "cpu")
    (space.root / "manifests" / "LICENSE").write_text("You may.")
    assert "published" in space.doit("publish:cpu").output
    assert (folder_of(space, "cpu") / "LICENSE").read_text() == "You may."
    assert "licence is the file LICENSE of this folder" in card(space, "head.fp32", "cpu")
    assert checked(folder_of(space, "cpu")).returncode == 0


def test_weights_whose_licence_must_go_along_are_refused_without_its_text(space: BuildSpace) -> None:
    family = "sam3_build/families/toy/family.py"
    space.edit(family, "Layout, ModelFamily", "Layout, Licence, ModelFamily")
    space.edit(
        family,
        'tokenizer="any file does",',
        'tokenizer="any file does", licence=Licence("Toy License", "https://example.org/toy", must_accompany=True),',
    )
    space.build()
    run = space.doit("publish:cpu")
    words = "no licence: the Toy License, under which the official weights of toy are, wants a copy of its text"
    assert run.code == 1 and words in said(run.output) and "Traceback" not in run.output, run.output
    assert "`licence:` in the manifest's" in said(run.output) and not folder_of(space, "cpu").exists()
    (space.root / "manifests" / "terms.txt").write_text("You may.")
    space.edit(MANIFEST, "config: config.json}", "config: config.json, licence: terms.txt}")
    assert space.build("publish:cpu").built == set(), "a licence is in no key"
    assert (folder_of(space, "cpu") / "LICENSE").read_text() == "You may."
    text = card(space, "head.fp32", "cpu")
    assert "The official weights of toy are under the Toy License: https://example.org/toy" in text
