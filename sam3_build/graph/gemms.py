"""Takes an ONNX model, returns the type that each matrix product computes in, and that its weights are stored in.

A file's precision is read from the file itself. A node's inputs may have passed through casts: FP32
arithmetic behind FP16 casts is FP32, and FP16 arithmetic on INT8 weights is FP16. Models are `onnx_ir`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.graph import files, keep_fp32
from sam3_build.graph.files import infer_types
from sam3_build.graph.schemas import GEMMS, MOVERS
from sam3_build.params import NetworkParams, PrecisionParams
from sam3_build.plugins import RunRequest
from sam3_build.spec import Json

if TYPE_CHECKING:
    import onnx_ir as ir

# Who keeps a node in FP32 by its name: what is kept so does not count against a precision.
BY_NAME = (keep_fp32.MANIFEST, keep_fp32.FAMILY, keep_fp32.LOCK)

# So many nodes of each kind of fault are named.
NAMED = 3


@dataclass(frozen=True)
class Gemm:
    """One matrix product: the type it computes in, the type its constant operand is stored in (None: it has none)."""

    name: str
    operator: str
    computes: str
    stored: str | None
    weights: int

    def __str__(self) -> str:
        """Return the types as people read them."""
        return self.computes if self.stored in (None, self.computes) else f"{self.computes} on {self.stored} weights"

    def agrees(self, expected: str) -> bool:
        """Tell whether both types are the expected one."""
        return self.computes == expected and self.stored in (None, expected)


def measure(params: NetworkParams, written: PrecisionParams, inputs: Mapping[str, Path]) -> dict[str, Json]:
    """Return what `described` says of the file that is shipped, whatever emulates it, or of what a backend made of it.

    written: the parameters of the precision action
    inputs: onnx, the file's folder; fp32 (of a reduced precision), that of the FP32 graph: its nodes are what is
            expected; built, what a backend wrote
    """
    found = list(gemms(files.load(inputs["onnx"] / f"{params.stem}.onnx")))
    low, named = None, set[str]()
    if "fp32" in inputs:
        recipe, sound = registry.precision(params.precision), files.load(inputs["fp32"])
        expected, kept = keep_fp32.gemm_types(sound, recipe, written), keep_fp32.kept(sound, recipe, written)
        low = "INT8" if recipe.quantizes else recipe.onnx_type
        named = {name for name, why in kept.items() if why in BY_NAME or written.options}
        named |= {name for name, kind in expected.items() if kind == "FLOAT" and name not in kept}
    else:
        expected = {gemm.name: "FLOAT" for gemm in found}
    if params.backend is None:
        return described(found, expected, low, named)
    backend = registry.backend(params.backend)
    inspect = backend.layer_types
    assert inspect is not None, "types are asked for only where they can be told"
    told = inspect(RunRequest(inputs["built"], inputs["onnx"], params.stem, params.options))
    made = [replace(gemm, computes=told[gemm.name], stored=None) for gemm in found if gemm.name in told]
    if backend.names_all_layers:  # what no layer is found for is missing, and fails
        return described(made, expected, low, named)
    untold: list[Json] = [gemm.name for gemm in found if gemm.name not in told]
    expected = {name: kind for name, kind in expected.items() if name in told}
    agreed = all(gemm.agrees(expected.get(gemm.name, "none at all")) for gemm in made)
    little = agreed and not _enough(made, found)
    said = _not_checked(len(made), len(found)) if little else described(made, expected, low, named)
    return said | {"untold": untold}


def _enough(known: Sequence[Gemm], gemms: Sequence[Gemm]) -> bool:
    """Tell whether an engine's layers name enough of its GEMMs to pass it: those with half of the weights."""
    return bool(known) and 2 * sum(gemm.weights for gemm in known) >= sum(gemm.weights for gemm in gemms)


def _not_checked(named: int, gemms: int) -> dict[str, Json]:
    """Return what `described` says of an engine whose layers name too few of its GEMMs, all of them as expected.

    Those that are fused with others name none, and they are the ones that go wrong.
    """
    why = (
        f"not checked: the engine's layers name {named} of its {gemms} GEMMs, less than half of the weights; the "
        "others follow the ONNX, whose types are judged"
    )
    metrics: dict[str, Json] = dict.fromkeys(("gemms", "low_gemms", "low_share"))
    return described([], {}, None, ()) | {"metrics": metrics, "informs": dict.fromkeys(metrics, why)}


def gemms(model: ir.Model) -> Iterator[Gemm]:
    """Yield every GEMM of `model` that computes on floating tensors or between Q/DQ pairs; types are inferred."""
    infer_types(model)
    for node in model.graph:
        result = node.outputs[0].dtype
        if node.op_type in GEMMS and result is not None and result.is_floating_point():
            yield _gemm(node)


def described(
    found: Sequence[Gemm], expected: Mapping[str, str], low: str | None, named: Container[str]
) -> dict[str, Json]:
    """Return, as the statistics of an output, how far `found` is what is `expected`: GEMM node name -> type.

    low:   the type that the recipe is sold as; None for FP32
    named: nodes that somebody keeps in FP32 by name, or whose operator knows no lower type

    gemms      how many compute in, or are stored in, another type than expected, are missing, or are not expected
    low_gemms  how many compute in `low`
    low_share  their part of all weights of GEMMs that are not `named`; without any such weights 1, or 0 for no low GEMM
    """
    present = {gemm.name: gemm for gemm in found}
    wrong: dict[tuple[str, str], list[str]] = {}
    for gemm in found:
        if gemm.name not in expected or not gemm.agrees(expected[gemm.name]):
            fault = (str(gemm), expected.get(gemm.name, "none at all"))
            wrong.setdefault(fault, []).append(f"{gemm.operator} {gemm.name}")
    for name in expected:
        if name not in present:
            wrong.setdefault(("missing", expected[name]), []).append(name)
    metrics: dict[str, Json] = {"gemms": sum(map(len, wrong.values())) if found or expected else None}
    if low is not None:
        lowered = [gemm for gemm in found if gemm.computes == low]
        whole = sum(gemm.weights for gemm in found if gemm.name not in named)
        share = (
            sum(gemm.weights for gemm in lowered if gemm.name not in named) / whole if whole else float(bool(lowered))
        )
        metrics |= {"low_gemms": len(lowered), "low_share": share}
    return {
        "dtype": "types",
        "exact": True,
        "elements": len(found),
        "metrics": metrics,
        "problems": [],
        "worst": None,
        "counts": dict(sorted(Counter(map(str, found)).items())),
        "where": {
            "gemms": "; ".join(
                f"{len(nodes)} of {len(found)} GEMMs: {kind} where {should} is expected "
                f"({', '.join(nodes[:NAMED])}{', ...' if len(nodes) > NAMED else ''})"
                for (kind, should), nodes in wrong.items()
            )
        },
    }


def _gemm(node: ir.Node) -> Gemm:
    operands = [v for v in (node.inputs if node.op_type == "Einsum" else node.inputs[:2]) if v is not None]
    kinds = [_quantized(value) or _name(value) for value in operands]
    # Where only one operand lies between Q/DQ pairs, it is converted to the other one's type.
    computes = kinds[0] if len(set(kinds)) == 1 else _name(operands[0])
    origins = [origin for value in operands if (origin := _origin(value)) is not None]
    stored = origins[-1] if origins else None  # a constant before it is data, such as a decoder's queries
    weights = math.prod(stored.shape.numpy()) if stored is not None and stored.shape is not None else 0
    return Gemm(node.name or "", node.op_type, computes, _name(stored) if stored else None, weights)


def _name(value: ir.Value) -> str:
    return value.dtype.name if value.dtype is not None else "unknown"


def _quantized(value: ir.Value) -> str | None:
    """Return the integer type that a DequantizeLinear, with nothing but movers behind it, reads."""
    producer = value.producer()
    while producer is not None and producer.op_type in MOVERS and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return None
    return _name(producer.inputs[0]).removeprefix("U")  # UINT8 activations times INT8 weights are INT8 arithmetic


def _origin(value: ir.Value | None) -> ir.Value | None:
    """Return the stored weight that `value` is made of, through casts, dequantization and movers; None if computed."""
    while value is not None:
        producer = value.producer()
        if producer is None:
            return value if value.is_initializer() else None
        if producer.op_type == "Constant":
            return value
        if producer.op_type not in ("Cast", "QuantizeLinear", "DequantizeLinear", *MOVERS):
            return None
        value = producer.inputs[0]
    return None
