"""Faults planted into one block of a graph are found at that block; a healthy graph has none, and fusion is no block.

The stage itself measures: FP16 graphs that the precision stage writes, run by ONNX Runtime, and engines of a backend
that is made up here. What localize concludes from that is under test with it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import miniature
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from toy_graphs import info, n, toy

from sam3_build import registry
from sam3_build.backends import _onnxruntime
from sam3_build.backends.onnxruntime import BACKEND
from sam3_build.compare.judge import gates_for
from sam3_build.diagnose.localize import Located, conclude
from sam3_build.graph import files
from sam3_build.graph.blocks import blocks
from sam3_build.plugins import BuildRequest, RunRequest, Session
from sam3_build.spec import Comparison, Gate
from sam3_build.stages import build, localize, precision, verify

Fault = Callable[[onnx.ModelProto], None]
LAYERS, WIDTH = 5, 16


def network(*, scale: float = 1.0) -> onnx.ModelProto:
    """Return five residual blocks `net.layers.0..4`, x + W2 gelu(W1 norm(x)), between a stem and a head.

    Block 3 multiplies what it adds by `scale` and divides it again: 1e6 is nothing to FP32 and beyond FP16.
    """
    rng = np.random.default_rng(0)
    layers = [f"net.layers.{i}.fc{j}.weight" for i in range(LAYERS) for j in (1, 2)]
    matrices = ["net.stem.weight", *layers, "head.proj.weight"]
    weights = {name: rng.standard_normal((WIDTH, WIDTH)) / 4 for name in matrices}
    constants = {"one": np.ones(WIDTH), "up": np.array(scale**0.5), "down": np.array(scale**-0.5)}
    nodes = [n("MatMul", ["x", "net.stem.weight"], ["r0"], "net.stem/MatMul_0")]
    for i in range(LAYERS):
        layer = f"net.layers.{i}"
        nodes += [
            n("LayerNormalization", [f"r{i}", "one"], [f"n{i}"], f"{layer}.norm/LayerNormalization_0"),
            n("MatMul", [f"n{i}", f"{layer}.fc1.weight"], [f"h{i}"], f"{layer}.fc1/MatMul_0"),
            n("Gelu", [f"h{i}"], [f"g{i}"], f"{layer}.act/Gelu_0"),
            n("MatMul", [f"g{i}", f"{layer}.fc2.weight"], [f"o{i}"], f"{layer}.fc2/MatMul_0"),
        ]
        branch = f"o{i}"
        if i == 3:
            nodes += [
                n("Mul", [branch, "up"], ["up0"], f"{layer}/Mul_0"),
                n("Mul", ["up0", "up"], ["up1"], f"{layer}/Mul_1"),
                n("Mul", ["up1", "down"], ["down0"], f"{layer}/Mul_2"),
                n("Mul", ["down0", "down"], ["down1"], f"{layer}/Mul_3"),
            ]
            branch = "down1"
        nodes.append(n("Add", [f"r{i}", branch], [f"r{i + 1}"], f"{layer}/Add_0"))
    nodes.append(n("MatMul", [f"r{LAYERS}", "head.proj.weight"], ["y"], "head.proj/MatMul_0"))
    tensor = ("batch", 8, WIDTH)
    values = {name: np.asarray(value, np.float32) for name, value in (weights | constants).items()}
    return toy(nodes, [info("x", dims=tensor)], [info("y", dims=tensor)], values)


def attention_times(factor: float, name: str) -> Fault:
    """Return a fault: the node's output is multiplied by `factor`."""

    def plant(model: onnx.ModelProto) -> None:
        index, node = next((i, node) for i, node in enumerate(model.graph.node) if node.name == name)
        real = node.output[0]
        node.output[0] = "sound"
        elem = {t.name: t.data_type for t in model.graph.initializer}[node.input[1]]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(elem)
        model.graph.initializer.append(numpy_helper.from_array(np.array(factor, dtype), "factor"))
        model.graph.node.insert(index + 1, onnx.helper.make_node("Mul", ["sound", "factor"], [real], name="faulty"))

    return plant


def residual_dropped(name: str) -> Fault:
    """Return a fault: the addition passes on its branch alone."""

    def plant(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.name == name)
        branch = node.input[1]
        node.CopyFrom(onnx.helper.make_node("Identity", [branch], list(node.output), name=name))

    return plant


# ------------------------------------------------------------------ graphs


class Toy:
    """Folders of an FP32 and an FP16 graph and of recorded cases, as the store would hold them."""

    def __init__(self, root: Path, model: onnx.ModelProto) -> None:
        self.root = root
        for name in ("source", "fp32", "fp16", "reference", "out", "baseline", "verified", "built"):
            (root / name).mkdir()
        onnx.save(model, root / "source" / "net.onnx")
        for kind in ("fp32", "fp16"):
            precision.run({"component": "net", "precision": kind}, {"onnx": root / "source"}, root / kind)
        rng = np.random.default_rng(1)
        for case, rows in (("one", 1), ("two", 2)):
            x = rng.standard_normal((rows, 8, WIDTH)).astype(np.float32)
            np.savez(root / "reference" / f"{case}.npz", **{"inputs/x": x, "outputs/y": x})

    def plant(self, fault: Fault) -> None:
        edit(self.root / "fp16" / "net.fp16.onnx", fault)

    def located(self, **engine: object) -> Located:
        """Localize, verify and conclude, as the command does; `engine` holds the parameters of a backend."""
        fp32 = {"onnx": self.root / "fp32", "reference": self.root / "reference"}
        fp16 = {"onnx": self.root / "fp16", "reference": self.root / "reference"}
        before = sorted(self.root.iterdir())
        depth = depth_of("net", {**fp16, "fp32": self.root / "fp32"}, self.root / "out", **engine)
        assert sorted(self.root.iterdir()) == before, "what the stage writes beside its output is gone"
        common, measured = {"component": "net"}, {"keep_outputs": True, "rows": 0}
        verify.run({**common, **measured, "precision": "fp32"}, fp32, self.root / "baseline")
        if engine:
            build.run({**common, "precision": "fp16", **engine}, fp16, self.root / "built")
        beside = {"baseline": self.root / "baseline", "built": self.root / "built"}
        verify.run({**common, **measured, "precision": "fp16", **engine}, {**fp16, **beside}, self.root / "verified")
        return conclude(comparison("y"), depth, json.loads((self.root / "verified" / "statistics.json").read_text()))


def edit(file: Path, fault: Fault) -> None:
    model = onnx.load(file)
    fault(model)
    onnx.checker.check_model(model)
    file.unlink()
    onnx.save(model, file)


def depth_of(component: str, inputs: dict[str, Path], out: Path, **engine: object) -> dict[str, object]:
    params = {"component": component, "precision": "fp16", **engine}
    localize.run(params, inputs, out)
    found: dict[str, object] = json.loads((out / "depth.json").read_text())
    return found


def comparison(*outputs: str) -> Comparison:
    gates = {name: gates_for("fp16", "float32", {}) for name in outputs}
    return Comparison("net", "a vs b", "fp16", None, "verify:net.fp16", None, outputs, gates)


def test_a_healthy_graph_has_no_block_that_parts(tmp_path: Path) -> None:
    located = Toy(tmp_path, network()).located()
    assert [depth.block for depth in located.blocks] == [
        "net.stem",
        *(f"net.layers.{i}" for i in range(5)),
        "head.proj",
    ]
    assert (located.parts, located.finding) == (
        None,
        "no block introduces an error: the values of every output pass their gates",
    )
    assert all(0 < depth.error < 0.5 for depth in located.blocks), "rounding, and no more"
    (y,) = located.outputs
    assert 0 < y.cut < 0.5 and 0 < y.whole < 0.5


def test_weights_that_lie_beside_the_graphs_lie_beside_the_tapped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "INLINE_LIMIT", 0)
    monkeypatch.setattr(files, "SMALL_TENSOR", 64)
    space = Toy(tmp_path, network())
    assert (tmp_path / "fp16" / "net.fp16.onnx.data").stat().st_size > 0
    located = space.located()
    assert (located.parts, len(located.blocks)) == (None, LAYERS + 2)


FAULTS = {
    "attention x2.5 in block 1": (attention_times(2.5, "net.layers.1.fc2/MatMul_0"), "net.layers.1"),
    "attention x2.5 in block 4": (attention_times(2.5, "net.layers.4.fc2/MatMul_0"), "net.layers.4"),
    "residual of block 0 dropped": (residual_dropped("net.layers.0/Add_0"), "net.layers.0"),
    "residual of block 2 dropped": (residual_dropped("net.layers.2/Add_0"), "net.layers.2"),
    "stem x2.5": (attention_times(2.5, "net.stem/MatMul_0"), "net.stem"),
    "head x2.5": (attention_times(2.5, "head.proj/MatMul_0"), "head.proj"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_block_is_found_at_that_block(tmp_path: Path, fault: str) -> None:
    plant, block = FAULTS[fault]
    space = Toy(tmp_path, network())
    space.plant(plant)
    located = space.located()
    assert located.parts and located.parts.block == block
    assert located.finding.startswith(f"the error begins at {block}: ")
    assert located.parts.node.startswith(f"{block}/")
    assert all(output.cut > 1 and output.whole > 1 for output in located.outputs)


def test_an_overflow_of_fp16_is_found_at_its_block_and_called_what_it_is(tmp_path: Path) -> None:
    located = Toy(tmp_path, network(scale=1e6)).located()
    assert located.finding == "the error begins at net.layers.3: NaN or Inf, at net.layers.3/Add_0"
    assert [depth.told for depth in located.blocks].count("NaN or Inf") == 3, "block 3 and all that follows it"


# ------------------------------------------------------------------ engines


def engine(monkeypatch: pytest.MonkeyPatch, faulty: Callable[[onnx.ModelProto], Fault | None]) -> dict[str, object]:
    """Make up a backend whose engine is the graph with the fault that `faulty` picks for it; return its parameters."""

    def built(request: BuildRequest, out: Path) -> dict[str, object]:
        shutil.copy(request.onnx, out / f"{request.stem}.engine")
        if fault := faulty(onnx.load(request.onnx)):
            edit(out / f"{request.stem}.engine", fault)
        return {}

    def opened(request: RunRequest) -> AbstractContextManager[Session]:
        return _onnxruntime.session(request.built / f"{request.stem}.engine", "cpu")

    backend = replace(BACKEND, name="made_up", extension=".engine", build=built, session=opened)
    monkeypatch.setattr(registry, "backend", lambda name: backend)
    return {"backend": "made_up", "options": {}, "profiles": []}


def test_a_faulty_engine_is_found_at_its_block_though_the_graph_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = attention_times(2.5, "net.layers.2.fc2/MatMul_0")
    located = Toy(tmp_path, network()).located(**engine(monkeypatch, lambda model: fault))
    assert located.parts and located.parts.block == "net.layers.2"


def test_a_fault_that_more_outputs_cure_names_no_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder that fuses across blocks cannot do so where it must keep what lies between them."""
    fault = attention_times(2.5, "net.layers.2.fc2/MatMul_0")
    params = engine(monkeypatch, lambda model: fault if len(model.graph.output) == 1 else None)
    located = Toy(tmp_path, network()).located(**params)
    assert located.parts is None
    assert located.finding == "with more outputs the error is gone: fusion across blocks, so no block can be named"
    (y,) = located.outputs
    assert y.whole > 1 > y.cut > 0


def test_what_fails_and_is_no_matter_of_blocks_is_said(tmp_path: Path) -> None:
    space = Toy(tmp_path, network())
    assert "no block shows" not in space.located().finding
    verified = json.loads((tmp_path / "verified" / "statistics.json").read_text())
    verified["outputs"]["y"]["metrics"]["rows"] = 1.0
    gates = {"y": (*comparison("y").gates["y"], Gate("rows", 0.02))}
    depth = json.loads((tmp_path / "out" / "depth.json").read_text())
    located = conclude(replace(comparison("y"), gates=gates), depth, verified)
    assert located.finding == (
        "no block introduces an error: the values of every output pass their gates; "
        "but rows fails, which no block shows"
    )


def test_a_fault_that_only_more_outputs_show_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = attention_times(2.5, "net.layers.2.fc2/MatMul_0")
    params = engine(monkeypatch, lambda model: fault if len(model.graph.output) > 1 else None)
    located = Toy(tmp_path, network()).located(**params)
    assert located.parts and located.parts.block == "net.layers.2"
    assert located.finding.endswith("; without boundaries as outputs, every gate is passed")


# ------------------------------------------------------------------ the miniature


@pytest.mark.parametrize(
    ("fault", "block"),
    [
        (attention_times(2.5, "vision_encoder.backbone.layers.2.attention.o_proj/MatMul_0"), "layers.2"),
        (residual_dropped("vision_encoder.backbone.layers.1/Add_0"), "layers.1"),
    ],
    ids=["attention x2.5", "residual dropped"],
)
def test_a_fault_in_a_block_of_the_miniatures_vision_encoder_is_found(tmp_path: Path, fault: Fault, block: str) -> None:
    inputs = {role: miniature.folder(f"precision:vision_encoder.{role}") for role in ("fp32", "fp16")}
    (tmp_path / "faulty").mkdir()
    (tmp_path / "out").mkdir()
    shutil.copy(inputs["fp16"] / "vision_encoder.fp16.onnx", tmp_path / "faulty")
    edit(tmp_path / "faulty" / "vision_encoder.fp16.onnx", fault)
    folders = {"fp32": inputs["fp32"], "onnx": tmp_path / "faulty"}
    reference = miniature.folder("reference:vision_encoder")
    depth = depth_of("vision_encoder", {**folders, "reference": reference}, tmp_path / "out")
    outputs = comparison("fpn_feat_0", "fpn_feat_1", "fpn_feat_2", "fpn_pos_2")
    located = conclude(outputs, depth, depth)
    assert located.parts and located.parts.block == f"vision_encoder.backbone.{block}"
    assert [output.output for output in located.outputs if output.cut > 1] == ["fpn_feat_0", "fpn_feat_1", "fpn_feat_2"]


@pytest.mark.parametrize("component", ["vision_encoder", "text_encoder", "geometry_encoder", "decoder"])
def test_every_layer_of_the_miniature_is_a_block_and_every_floating_output_leaves_one(component: str) -> None:
    model = files.load(miniature.onnx(f"precision:{component}.fp32"))
    found = blocks(model)
    layers = {re.match(r".*?\.layers\.\d+", str(node.name)) for node in model.graph} - {None}
    assert {match[0] for match in layers if match} <= {block.name for block in found}
    floating = {value.name for value in model.graph.outputs if value.dtype.name == "FLOAT"}
    assert floating <= {tensor for block in found for tensor in block.leaves}
    assert all(other < number for number, block in enumerate(found) for other in block.after)
