"""Names nodes and tensors of an ONNX graph after PyTorch module paths: people, patterns and engines rely on them.

`detr_decoder.layers.3.vision_cross_attn/MatMul_0` is a node, the same with `:0` its first output, a checkpoint key a
weight, and `<node>:in1` a constant that is no weight. Models are `onnx_ir.Model`, changed in place.
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_ir import Graph, Model, Node, Value

NODE_NAME = re.compile(r"([\w.]+)/\w+_\d+")
CHECKPOINT_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)+")


def module_path(node_name: str | None) -> str | None:
    """Return `detr_decoder.layers.0.mlp` of `detr_decoder.layers.0.mlp/MatMul_0`, or None for any other name."""
    match = NODE_NAME.fullmatch(node_name or "")
    return match[1] if match else None


def name_from_scopes(model: Model, component: str, checkpoint_keys: Collection[str]) -> None:
    """Name everything in a graph that torch.onnx has just exported.

    A node's name is the path of the module that it came from, its operator, and a counter. A weight that the exporter
    folded (transposed, reshaped) keeps its checkpoint key; folded twice into the same bytes, it is kept once.
    """
    graph = model.graph
    graph.name = component
    for node in graph:
        path = _recorded_path(node)
        node.name = f"{path}/{node.op_type}_0" if path else None
    by_key: dict[str, list[Value]] = {}
    for value in list(graph.initializers.values()):
        key = _recorded_key(value, checkpoint_keys)
        if key is None:
            continue
        same = by_key.setdefault(key, [])
        twin = next((v for v in same if _equal(v, value)), None)
        if twin is not None:
            value.replace_all_uses_with(twin)
            del graph.initializers[value.name or ""]
        else:
            same.append(value)
    _rename({value: key if i == 0 else f"{key}.{i}" for key, same in by_key.items() for i, value in enumerate(same)})
    complete_names(model, by_key)


def weights(model: Model) -> frozenset[str]:
    """Return the names of the weights of a graph whose names are complete: of all constants but `<node>:in1`."""
    return frozenset(name for name in model.graph.initializers if ":" not in name)


def complete_names(model: Model, weights: Collection[str] = ()) -> None:
    """Name what has no name or a tool's: to run after every tool that rewrites the graph.

    Nodes that have a module path keep their name; others take the path of a neighbour. Names of graph inputs, outputs
    and weights stay; other tensors are named after their producer, other constants after their first use.

    weights: names of weights that one cannot tell from a tool's: that of a model's own parameter has no dot
    """
    graph = model.graph
    paths = _paths_with_neighbours(graph)
    taken = {node.name for node in graph if module_path(node.name)}
    seen: set[str | None] = set()
    for node in graph:
        if module_path(node.name) is None or node.name in seen:
            node.name = _next_name(paths[node], node.op_type, taken | seen)
        seen.add(node.name)

    outputs = set(graph.outputs)
    wanted: dict[Value, str] = {}
    for node in graph:
        for index, value in enumerate(node.outputs):
            if value not in outputs and value.name != "":
                wanted[value] = f"{node.name}:{index}"
        for index, used in enumerate(node.inputs):
            if used is not None and used.is_initializer() and not _is_weight(used.name or "", weights):
                wanted.setdefault(used, f"{node.name}:in{index}")
    _rename(wanted)


def _is_weight(name: str, weights: Collection[str]) -> bool:
    return name in weights or bool(CHECKPOINT_KEY.fullmatch(name))


def _recorded_path(node: Node) -> str | None:
    # A list like ['', 'detr_encoder', 'detr_encoder.layers.0', 'add_12']: modules from the root, then the traced node.
    scopes = literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))[:-1]
    paths = [s for s in scopes if s and not s.startswith("_empty_nn_module_stack")]
    return paths[-1] if paths else None


def _recorded_key(value: Value, checkpoint_keys: Collection[str]) -> str | None:
    folded_from = literal_eval(value.metadata_props.get("pkg.onnxscript.optimizer.folded_from", "[]"))
    keys = {name for name in (value.name, *folded_from) if name in checkpoint_keys}
    return keys.pop() if len(keys) == 1 else None


def _equal(one: Value, other: Value) -> bool:
    a, b = one.const_value, other.const_value
    if a is None or b is None or (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return a.tobytes() == b.tobytes()


def _rename(wanted: dict[Value, str]) -> None:
    for number, value in enumerate(wanted):
        value.name = f"?{number}"  # out of each other's way first
    for value, name in wanted.items():
        value.name = name


def _next_name(path: str, operator: str, taken: Collection[str | None]) -> str:
    count = 0
    while f"{path}/{operator}_{count}" in taken:
        count += 1
    return f"{path}/{operator}_{count}"


def _paths_with_neighbours(graph: Graph) -> dict[Node, str]:
    paths = {node: path for node in graph if (path := module_path(node.name))}

    def adopt(nodes: Iterable[Node], neighbours: Callable[[Node], Iterator[Node]]) -> None:
        for node in nodes:
            near = None if node in paths else next((n for n in neighbours(node) if n in paths), None)
            if near is not None:
                paths[node] = paths[near]

    def producers(node: Node) -> Iterator[Node]:
        return (producer for value in node.inputs if value is not None and (producer := value.producer()))

    def consumers(node: Node) -> Iterator[Node]:
        return (use.node for value in node.outputs for use in value.uses())

    def siblings(node: Node) -> Iterator[Node]:
        return (use.node for value in node.inputs if value is not None for use in value.uses())

    adopt(graph, producers)
    adopt(reversed(graph), consumers)
    adopt(graph, siblings)
    adopt(graph, producers)
    return {node: paths.get(node, graph.name or "graph") for node in graph}
