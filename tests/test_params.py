"""Parameters of actions: typed where a plan writes them and where a stage reads them, one JSON document in between."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, replace

import pytest
from build_space import ROOT

from sam3_build import digest, params
from sam3_build.digest import canonical
from sam3_build.documents import Params
from sam3_build.errors import BuildError
from sam3_build.manifest.load import load
from sam3_build.params import BuildParams, NetworkParams, PrecisionParams, ReferenceGapParams, VerifyParams
from sam3_build.plan import search
from sam3_build.plan.make import make_plan
from sam3_build.plan.resolve import Machine, resolve
from sam3_build.spec import Feed, Json

BUILD: dict[str, Json] = {
    "component": "decoder",
    "precision": "fp16",
    "backend": "toy",
    "options": {"level": 3},
    "profiles": [{"batch": [1, 2, 8]}],
}

DEFAULTS: dict[tuple[str, str], object] = {
    ("CheckpointParams", "image_size"): None,
    ("PrecisionParams", "keep_fp32"): (),
    ("PrecisionParams", "fp32_nodes"): (),
    ("PrecisionParams", "options"): {},
    ("PrecisionParams", "locked"): None,
    ("PrecisionParams", "require_low"): True,
    ("NetworkParams", "backend"): None,
    ("NetworkParams", "options"): {},
    ("NetworkParams", "profiles"): (),
    ("NetworkParams", "row_dim"): None,
    ("NetworkParams", "row_axes"): {},
    ("SampleParams", "is_reordered"): False,
    ("VerifyParams", "types"): None,
    ("VerifyParams", "meaningful_where"): {},
    ("VerifyParams", "chosen_by"): {},
    ("CompareParams", "draws"): True,
    ("TrialParams", "cases"): None,
    ("SampleParams", "frames"): 0,
    ("SampleParams", "reverse"): False,
    ("ReferenceParams", "per"): "case",
    ("ChainParams", "per"): "case",
}


def test_what_a_plan_writes_is_what_stages_read() -> None:
    plan = make_plan(load("sam3_mini", ROOT))
    tried = (
        search.ranges(plan, "decoder", "fp16", None),
        search.trial(plan, plan.action("verify:decoder.fp16"), ["precision:decoder.fp16"], 2),
        search.trial(plan, plan.action("compare:fp16"), ["precision:vision_encoder.fp16", "precision:decoder.fp16"]),
    )
    for action in (*plan.actions, *tried):
        document = json.loads(canonical(action.params))
        assert type(action.arguments).of(document) == action.arguments, action.name
        assert type(action.arguments).of(document).document() == document, action.name
    assert {type(action.arguments) for action in (*plan.actions, *tried)} >= {
        BuildParams,
        ReferenceGapParams,
        VerifyParams,
    }


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def test_every_stage_has_a_class_of_parameters_and_reads_no_raw_ones() -> None:
    """What is read from the document itself is typed by nobody."""
    named = {snake(name.removesuffix("Params")) for name in vars(params) if name.endswith("Params")} | {"quantize"}
    for path in sorted((ROOT / "sam3_build" / "stages").glob("[a-z]*.py")):
        text = path.read_text()
        assert path.stem in named, path.name
        assert "document[" not in text and "document.get(" not in text and "assert isinstance(params" not in text
        assert "Params.of(document)" in text, path.name


def test_documents_are_decoded_into_the_types_that_fields_declare() -> None:
    read = BuildParams.of(BUILD)
    assert read.profiles == ({"batch": (1, 2, 8)},)
    assert (read.options, read.document()) == ({"level": 3}, BUILD)
    with pytest.raises(FrozenInstanceError):
        read.component = "other"  # type: ignore[misc]


def test_a_field_that_has_its_default_is_left_out_and_changes_no_key() -> None:
    plain = NetworkParams(component="decoder", precision="fp16")
    assert plain.document() == {"component": "decoder", "precision": "fp16"}
    assert NetworkParams.of(plain.document()) == plain
    assert VerifyParams(component="a", precision="b", keep_outputs=False, rows=0).document() == {
        "component": "a",
        "precision": "b",
        "keep_outputs": False,
        "rows": 0,
    }, "what has no default is always there"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backend": None}, "parameter BuildParams.backend must be str, not None"),
        (
            {"profiles": [{"batch": [1, 2]}]},
            r"parameter BuildParams.profiles.0.batch must be tuple\[.*\], not \[1, 2\]",
        ),
        ({"profiles": [{"batch": [1, 2.5, 8]}]}, "parameter BuildParams.profiles.0.batch.1 must be int, not 2.5"),
        ({"profile": []}, "BuildParams has no profile, only component, precision, backend, options, profiles"),
    ],
)
def test_a_document_that_does_not_fit_is_refused_with_the_field(changes: dict[str, Json], says: str) -> None:
    with pytest.raises(BuildError, match=says):
        BuildParams.of({**BUILD, **changes})
    with pytest.raises(BuildError, match="BuildParams lacks component, precision"):
        BuildParams.of({"backend": "toy", "options": {}, "profiles": []})
    with pytest.raises(TypeError, match="PrecisionParams lacks precision"):
        PrecisionParams(component="decoder")  # type: ignore[call-arg]


def test_parameters_are_equal_when_they_are_of_one_class_and_say_the_same() -> None:
    class Other(Params):
        component: str

    assert Other(component="a") == Other(component="a") != Other(component="b")
    given = NetworkParams(component="a", precision="b", profiles=({"batch": (1, 2, 3)},))
    assert NetworkParams.of(json.loads(canonical(given.document()))) == given
    assert PrecisionParams(component="a", precision="b") != NetworkParams(component="a", precision="b")


# ------------------------------------------------------------------ one resolved value


def test_a_component_is_resolved_with_the_ranges_of_its_own_dims_and_all_profiles_where_none_is_named() -> None:
    manifest = load("sam3_mini", ROOT)
    model = resolve(manifest, Machine(None, "there is none"))
    whole = tuple(manifest.shape_profiles.values())
    for name, precisions in model.built.items():
        for resolved in precisions.values():
            dims = model.components[name].spec.symbolic_dims
            assert {d for t in resolved.targets.values() for profile in t.profiles for d in profile} <= dims
            assert {len(t.profiles) for t in resolved.targets.values() if t.backend.uses_profiles} == {len(whole)}
            assert all(not t.profiles for t in resolved.targets.values() if not t.backend.uses_profiles)


def test_a_plug_in_is_asked_once_for_targets_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = load("sam3_mini", ROOT)
    one = next(target for target in manifest.targets.values() if target.backend == "onnxruntime")
    manifest = replace(manifest, targets={"a": one, "b": one})
    asked: list[object] = []
    real = Machine.blocked
    monkeypatch.setattr(Machine, "blocked", lambda self, *about: asked.append(about) or real(self, *about))
    plan = make_plan(manifest)
    assert [action.name for action in plan.actions if action.name.endswith(".b")]
    assert len({id(about) for about in asked}) <= 2, "once for building, once for running, whatever is built"


def test_defaults_and_file_stems_are_what_keys_were_made_with() -> None:
    """A field that has its default is left out of the document that a key is made of; a stem names the files of an
    output. The core is in no key: who changes one of these raises `digest.KEY_VERSION`, and then this test.
    """
    defaults = {
        (name, field): getattr(kind, field)
        for name, kind in vars(params).items()
        if isinstance(kind, type) and issubclass(kind, Params) and kind is not Params
        for field in kind.__annotations__
        if field in vars(kind)
    }
    assert digest.KEY_VERSION == 1
    assert defaults == DEFAULTS
    assert Feed("x", (("encoder", "y"),)).axis == 1
    graph = {"component": "decoder", "precision": "fp16"}
    assert PrecisionParams(**graph).stem == NetworkParams(**graph).stem == "decoder.fp16"
