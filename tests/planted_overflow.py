"""Toy transformers with faults planted that FP16 cannot hold: a graph, its cases and the planted nodes out.

`overflow` scales what a module computes by 2^8, by 2^8 again and back: the tensor before the way back leaves FP16's
range, and no weight comes near it. `cancel` adds 3000 and takes it off again: all is in range, and FP16 rounds to
multiples of two. Of each, the last two nodes must be FP32, and nothing else. `outlier` makes one channel a thousand
times as large as the others, and a product with a matrix takes that back: INT8 has no steps left for the others.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 16
OUTLIER = np.where(np.arange(WIDTH) == 3, 1000.0, 1.0)

PLANTS: dict[str, tuple[tuple[str, float | np.ndarray], ...]] = {
    "overflow": (("Mul", 2.0**8), ("Mul", 2.0**8), ("Mul", 2.0**-16)),
    "cancel": (("Add", 3000.0), ("Sub", 3000.0)),
    "outlier": (("Mul", OUTLIER), ("MatMul", np.diag(1 / OUTLIER))),
}


class Writer:
    """Writes nodes under module paths, as the exporter names them; weights are drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.planted: set[str] = set()
        self._rng = np.random.default_rng(seed)

    def op(self, path: str, operator: str, *inputs: str, **attributes: float) -> str:
        count = sum(node.name.startswith(f"{path}/{operator}_") for node in self.nodes)
        name = f"{path}/{operator}_{count}"
        self.nodes.append(helper.make_node(operator, list(inputs), [f"{name}:0"], name=name, **attributes))
        return f"{name}:0"

    def weight(self, name: str, array: np.ndarray) -> str:
        self.weights[name] = np.asarray(array, np.float32)
        return name

    def linear(self, path: str, x: str, width: int) -> str:
        drawn = self._rng.standard_normal((width, width)) / np.sqrt(width)
        return self.op(path, "MatMul", x, self.weight(f"{path}.weight", drawn))

    def plant(self, kind: str, path: str, x: str) -> str:
        made = []
        for step, (operator, value) in enumerate(PLANTS[kind]):
            x = self.op(path, operator, x, self.weight(f"{path}.{kind}{step}.constant", np.array(value)))
            made.append(x.removesuffix(":0"))
        self.planted.update(made[-2:])
        return x


def planted(
    blocks: int,
    plants: dict[str, str],
    width: int = WIDTH,
    seed: int = 0,
    component: str = "encoder",
    is_plain: bool = False,
) -> tuple[onnx.ModelProto, frozenset[str]]:
    """Return a transformer of so many blocks, (batch, width) to (batch, width), and the names of its planted nodes.

    plants: module path below the component, such as `layers.2.mlp`, -> a kind of PLANTS
    is_plain: without softmax and gain, for OpenVINO fuses products that stand around these, and names them no more
    """
    writer, left = Writer(seed), dict(plants)
    x = "x"
    for index in range(blocks):
        for part in ("mlp",) if is_plain else ("attn", "mlp"):
            path = f"{component}.layers.{index}.{part}"
            norm = f"{component}.layers.{index}.norm_{part}"
            scale = writer.weight(f"{norm}.weight", np.ones(width))
            y = writer.op(norm, "LayerNormalization", x, scale, axis=-1)
            y = writer.linear(f"{path}.first", y, width)
            y = writer.op(path, "Softmax", y, axis=-1) if part == "attn" else writer.op(path, "Tanh", y)
            y = writer.linear(f"{path}.second", y, width)
            if not is_plain:
                y = writer.op(path, "Mul", y, writer.weight(f"{path}.gain", np.array(2.0)))
            if kind := left.pop(f"layers.{index}.{part}", None):
                y = writer.plant(kind, path, y)
            x = writer.op(f"{component}.layers.{index}", "Add", x, y)
    assert not left, f"there is no {sorted(left)} to plant in"
    writer.nodes[-1].output[0] = "y"
    body = helper.make_graph(
        writer.nodes,
        component,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(array, name) for name, array in writer.weights.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model, frozenset(writer.planted)


def cases(width: int = WIDTH, seed: int = 1) -> dict[str, np.ndarray]:
    """Return case -> x, as a reference would record it."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((batch, width)).astype(np.float32) for name, batch in (("one", 8), ("two", 64))}
