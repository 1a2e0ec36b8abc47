"""Takes a component's ONNX and recorded inputs, returns `<component>.<precision>.onnx` with explicit Q/DQ pairs.

ONNX Runtime's quantizer writes them: symmetric INT8, activations by the largest magnitude that was ever seen, weights
by column. Everything else stays FP32. Names are made canonical again afterwards.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.graph import files, keep_fp32, names
from sam3_build.graph.schemas import GEMMS
from sam3_build.params import PrecisionParams
from sam3_build.pipeline.cases import recorded_cases
from sam3_build.plugins import ONNX, Memory, Precision, Stage
from sam3_build.spec import Json
from sam3_build.stages._calibration import magnitudes

if TYPE_CHECKING:
    import onnx_ir as ir

logger = logging.getLogger(__name__)

# What the quantizer appends to a weight's name, and what that becomes: checkpoint keys with one more part.
SUFFIXES = {"_quantized": ".int8", "_scale": ".scale", "_zero_point": ".zero_point"}


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write the quantized graph and return what is INT8, what is not and why.

    document: PrecisionParams. inputs: onnx; reference, a folder of `<case>.npz` with `inputs/<name>`.
    """
    params = PrecisionParams.of(document)
    stem, recipe = params.stem, registry.precision(params.precision)
    cases = recorded_cases(inputs["reference"], params.component)
    model = files.load(inputs["onnx"])
    chosen, kept = choose(model, recipe, keep_fp32.kept(model, recipe, params))
    if not chosen and params.require_low:
        raise BuildError(
            f"{stem}: no {' or '.join(recipe.quantizes)} is left to quantize, so this would be FP32 under another "
            f"name; kept in FP32: {dict(kept)}. Keep less, or leave it out"
        )
    before, own = files.weight_bytes(model), names.weights(model)
    target = out / f"{stem}.onnx"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if chosen:  # the quantizer takes no nodes for all of them
            files.save(model, work / "fp32.onnx")
            _quantize(work, recipe, chosen, cases)
            shared = _shared(model, frozenset(chosen))
            model = files.load(work / "int8.onnx")
            _spare_others(model, frozenset(chosen), shared)
            _rename(model, own)
        files.save(model, target)
        pairs = Counter(node.op_type for node in model.graph)
        after, nodes = files.weight_bytes(model), len(model.graph)
        del model
    files.check(target, stem)
    facts: dict[str, Json] = {
        "low": len(chosen),
        "gemms": len(chosen) + kept.total(),
        "low_gemms": len(chosen),
        "kept": dict(sorted(kept.items())),
        "quantize_linear": pairs["QuantizeLinear"],
        "dequantize_linear": pairs["DequantizeLinear"],
        "cases": len(cases),
        "nodes": nodes,
        "weight_bytes_before": before,
        "weight_bytes": after,
    }
    logger.info("%s: %s", stem, facts)
    return facts


def choose(model: ir.Model, recipe: Precision, keep: Mapping[str, str]) -> tuple[list[str], Counter[str]]:
    """Return the nodes to quantize, and why how many other matrix multiplications stay FP32."""
    chosen: list[str] = []
    kept: Counter[str] = Counter()
    for node in model.graph:
        name = node.name or ""
        if node.op_type not in GEMMS:
            continue
        if name in keep:
            kept[keep[name]] += 1
        elif keep_fp32.is_quantizable(node, recipe.quantizes):
            chosen.append(name)
        else:
            kept["no weight matrix" if node.op_type in recipe.quantizes else node.op_type] += 1
    return chosen, kept


def _quantize(folder: Path, recipe: Precision, nodes: Collection[str], cases: Sequence[Path]) -> None:
    """Write `int8.onnx` beside `fp32.onnx`."""
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    source, ranges = folder / "fp32.onnx", folder / "ranges.json"
    model = files.load(source)
    read = dict.fromkeys(str(n.inputs[0].name) for n in model.graph if n.name in nodes and n.inputs[0] is not None)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        largest = magnitudes(model, read, cases, Path(scratch))
    of_all = {name: (np.float32(-value), np.float32(value)) for name, value in largest.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, of_all), ranges)
    del model
    quantize_static(
        source,
        folder / "int8.onnx",
        None,
        calibration_cache_path=ranges,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(recipe.quantizes),
        nodes_to_quantize=list(nodes),
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        use_external_data_format=source.with_name(f"{source.name}.data").exists(),
        # TensorRT takes symmetric types only, and adds what follows to the sum before it is rounded.
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "MatMulConstBOnly": True,
            "OpTypesToExcludeOutputQuantization": list(recipe.quantizes),
        },
    )


def _shared(model: ir.Model, chosen: frozenset[str]) -> dict[str, ir.TensorProtocol]:
    """Return the weights, by name, that both a node of `chosen` and another one read."""
    found: dict[str, ir.TensorProtocol] = {}
    for name, value in model.graph.initializers.items():
        readers = {use.node.name in chosen for use in value.uses()}
        if len(readers) == 2 and value.const_value is not None:
            found[name] = value.const_value
    return found


def _spare_others(model: ir.Model, chosen: frozenset[str], shared: Mapping[str, ir.TensorProtocol]) -> None:
    """Give the nodes that are not quantized what they read before: the quantizer puts a pair before all readers.

    Else a residual stream that a product reads as well would be INT8, and so would the weights that a product which
    stays FP32 shares with one that does not. shared: these, by name
    """
    import onnx_ir as ir

    for pair in [node for node in model.graph if node.op_type == "DequantizeLinear"]:
        others = [use for use in pair.outputs[0].uses() if use.node.name not in chosen]
        if not others:
            continue
        assert pair.inputs[0] is not None
        producer = pair.inputs[0].producer()
        original = producer.inputs[0] if producer else None
        if original is None:
            name = (pair.inputs[0].name or "").removesuffix("_quantized")
            original = ir.Value(name=name, const_value=shared[name])
            original.shape, original.dtype = ir.Shape(shared[name].shape.numpy()), shared[name].dtype
            model.graph.register_initializer(original)
        for use in others:
            use.node.replace_input_with(use.idx, original)


def _rename(model: ir.Model, weights: Collection[str]) -> None:
    """Give canonical names to what the quantizer named. weights: names of the graph's weights before."""
    for value in list(model.graph.initializers.values()):
        name = value.name or ""
        for suffix, part in SUFFIXES.items():
            stem = name.removesuffix(suffix)
            if stem != name and stem in weights:
                value.name = f"{stem}{part}"
    names.complete_names(model, weights)


STAGE = Stage(
    name="quantize",
    summary="Write calibrated Q/DQ pairs into graphs",
    tools=("numpy", "onnx", "onnx-ir", "onnxruntime"),
    run=run,
    memory=Memory(base=600_000_000, weights=4.2, activations=3.0),
    imports=ONNX,
)
