"""The patch stage on toy graphs: it holds patches to what they promise, and names what they make."""

from __future__ import annotations

import re
import sys
from importlib.metadata import packages_distributions

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from toy_graphs import info, n, operators, results, toy

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.graph import files
from sam3_build.plugins import Patch
from sam3_build.stages import patch

NEG = toy([n("Neg", ["x"], ["y"])], [info("x")], [info("y")])


def test_no_patches_copy_the_graph(patched):
    result, facts = patched(NEG)
    assert facts == {"rewrites": {}, "nodes_before": 1, "nodes": 1}
    assert result.graph.node == NEG.graph.node


def rename_output(surgeon):
    surgeon.outputs[0].name = "renamed"
    return 1


@pytest.mark.parametrize(
    ("requires", "apply", "ensures", "message"),
    [
        ("no Conv", lambda g: 1, None, r"^toy: patch 'fake' cannot be applied: no Conv$"),
        (
            None,
            lambda g: 0,
            None,
            r"patch 'fake' found nothing to rewrite \(does things\); remove it from the patches of",
        ),
        (None, lambda g: 3, "it is still there", r"^toy: patch 'fake' made 3 rewrites, but it is still there$"),
        (None, rename_output, None, r"patch 'fake' changed the inputs or outputs of the graph"),
    ],
)
def test_a_patch_is_held_to_its_promises(patched, monkeypatch, requires, apply, ensures, message):
    fake = Patch("fake", "does things", lambda g: requires, apply, lambda g: ensures)
    monkeypatch.setattr(registry, "patch", lambda name: fake)
    with pytest.raises(BuildError, match=message):
        patched(NEG, "fake")


def test_a_patch_that_breaks_the_graph_is_named(patched, monkeypatch):
    def break_it(surgeon: gs.Graph) -> int:
        surgeon.nodes[0].op = "NoSuchOperator"
        return 1

    fake = Patch("fake", "does things", lambda g: None, break_it, lambda g: None)
    monkeypatch.setattr(registry, "patch", lambda name: fake)
    with pytest.raises(BuildError, match=r"^toy after fake: the graph is not valid ONNX: .*NoSuchOperator"):
        patched(NEG, "fake")


def test_weights_beside_the_file_can_be_read_and_pass_through(monkeypatch, tmp_path):
    weight = np.arange(4096, dtype=np.float32).reshape(4, 1024)
    chain = [n("MatMul", ["x", "w"], ["a"]), n("Neg", ["a"], ["y"])]
    model = toy(chain, [info("x")], [info("y", dims=("batch", 1024))], {"w": weight})
    monkeypatch.setattr(files, "INLINE_LIMIT", 1000)
    read = []
    fake = Patch(
        "fake", "reads a weight", lambda g: None, lambda g: read.append(g.tensors()["w"].values) or 1, lambda g: None
    )
    monkeypatch.setattr(registry, "patch", lambda name: fake)
    (tmp_path / "beside").mkdir()
    patched_in = tmp_path / "beside" / "toy.onnx"
    onnx.save(model, patched_in, save_as_external_data=True, location="toy.onnx.data")
    (tmp_path / "result").mkdir()
    patch.run({"component": "toy", "patches": ["fake"]}, {"onnx": patched_in}, tmp_path / "result")
    assert sorted(f.name for f in (tmp_path / "result").iterdir()) == ["toy.onnx", "toy.onnx.data"]
    np.testing.assert_array_equal(read[0], weight)
    result = onnx.load(tmp_path / "result" / "toy.onnx")
    assert operators(result) == ["MatMul", "Neg"]
    x = np.ones((2, 4), np.float32)
    assert results(result, x=x) == results(onnx.load(patched_in), x=x)


def test_a_node_that_a_patch_makes_is_named_after_a_neighbour(patched, monkeypatch):
    def insert(surgeon: gs.Graph) -> int:
        last = surgeon.nodes[-1]
        between = gs.Variable("between", np.float32, ("batch", 4))
        surgeon.nodes.append(gs.Node("Abs", inputs=[between], outputs=list(last.outputs)))
        last.outputs = [between]
        return 1

    monkeypatch.setattr(registry, "patch", lambda name: Patch("fake", "x", lambda g: None, insert, lambda g: None))
    model, _ = patched(toy([n("Neg", ["x"], ["y"], "a.b/Neg_0")], [info("x")], [info("y")]), "fake")
    assert [(node.name, list(node.output)) for node in model.graph.node] == [
        ("a.b/Neg_0", ["a.b/Neg_0:0"]),
        ("a.b/Abs_0", ["y"]),
    ]


def test_the_patch_stage_declares_every_package_that_a_patch_imports():
    """Also of patches that no manifest of the project lists: else an upgrade would leave their outputs fresh."""
    distributions = packages_distributions()
    for name in registry.names("patches"):
        source = (registry.PACKAGE / "patches" / f"{name}.py").read_text()
        imported = set(re.findall(r"^ +(?:import|from) (\w+)", source, re.MULTILINE))
        packages = imported - sys.stdlib_module_names - {"sam3_build"}
        assert packages
        declared = {tool.replace("_", "-") for tool in patch.STAGE.tools}
        found = {package: {d.replace("_", "-") for d in distributions[package]} for package in packages}
        assert [package for package, names in found.items() if not names & declared] == [], name
