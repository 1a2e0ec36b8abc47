"""What MaskTracker of NVIDIA DeepStream loads: four networks by name, and the configuration file of its segmenter.

Keys and file names as DeepStream 9.1's tracker reads them. Which engine a network needs follows from how the tracker
calls it: one object at a time, one or two points, up to 7 memories of a frame's cells and 16 pointers, each of which is
cut into rows as wide as a memory (4 in full size).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sam3_build.plugins import Precision
from sam3_build.publish.format import Deployment, Format, Network

CONFIG = "config_tracker_module_Segmenter.yml"
INSTALLED = "/opt/nvidia/deepstream/deepstream/samples/models/Tracker"

# Component -> its section of the configuration, and how many MB TensorRT may work in.
SECTIONS = {
    "image_encoder": ("ImageEncoder", 5000),
    "mask_decoder": ("MaskDecoder", 5000),
    "memory_attention": ("MemoryAttention", 1000),
    "memory_encoder": ("MemoryEncoder", 5000),
}
# Without the other two, the memory, it segments each frame alone.
NEEDED = ("image_encoder", "mask_decoder")
MEMORY = ("memory_attention", "memory_encoder")

# ONNX type of a precision -> `networkMode`, and what file names call it. There is none for BF16.
MODES = {"FLOAT": (0, "fp32"), "FLOAT16": (1, "fp16")}

POINTERS, MEMORIES = 16, 7

# Backends whose files it loads: ONNX graphs, and engines.
LOADED = ("onnxruntime", "tensorrt")


def refuses(backend: str) -> str | None:
    """Return why engines of TensorRT-RTX are not published: they look like TensorRT's, and are another format."""
    if backend != "tensorrt_rtx":
        return None
    return (
        "DeepStream's MaskTracker runs TensorRT, which cannot load engines of TensorRT-RTX: publish a target with "
        "`backend: onnxruntime` (ONNX files, of which DeepStream builds engines) or `backend: tensorrt`"
    )


def unfit(network: Network) -> str | None:
    """Return which sizes MaskTracker asks for that no shape profile of an engine takes."""
    needed = {dim: span for dim, span in _needed(network).items() if dim in network.component.symbolic_dims}
    if network.engine is None or not needed:
        return None
    lacking = [
        [f"{dim} from {low} to {high}" for dim, (low, high) in needed.items() if not _takes(profile[dim], low, high)]
        for profile in network.profiles
    ]
    if not all(lacking):
        return None
    return f"no shape profile takes what MaskTracker feeds it: {', '.join(lacking[0])}"


def _needed(network: Network) -> Mapping[str, tuple[int, int]]:
    """Return dim -> smallest and largest size, as far as a network has the tensors that they follow from."""
    spans = {"batch": (1, 1), "num_points": (1, 2), "num": (1, POINTERS), "buff_size": (1, MEMORIES)}
    if positions := network.tensors.get("current_vision_pos_embed"):
        cells = int(positions[0])
        rows = int(network.tensors["memory_0"][2]) // int(network.tensors["memory_pos_embed"][2])
        spans["buff_size_embed"] = (cells + rows, MEMORIES * cells + POINTERS * rows)
    return spans


def _takes(span: tuple[int, int, int], low: int, high: int) -> bool:
    return span[0] <= low and high <= span[2]


def files(deployment: Deployment) -> Mapping[str, Path | bytes]:
    """Return the networks by the names that the tracker looks for, and the configuration that leads to them."""
    if _why_none(deployment):
        return {}
    folder = _folder(deployment)
    found: dict[str, Path | bytes] = {}
    for name in _names(deployment):
        network = deployment.networks[name]
        (_, main), *data = network.graph.items()
        found |= {f"{folder}/{name}.onnx": main, **{f"{folder}/{other}": path for other, path in data}}
        if network.engine:
            found[f"{folder}/{_engine(network, deployment.precision)}"] = network.engine
    found[f"{folder}/{CONFIG}"] = ("\n".join(_config(deployment)) + "\n").encode()
    return found


def notes(deployment: Deployment) -> Iterator[str]:
    """Yield which releases of DeepStream load what, and what nobody has verified."""
    if why := _why_none(deployment):
        yield f"DeepStream's MaskTracker loads nothing of this: {why}."
        return
    yield f"`{_folder(deployment)}/` holds the networks by the names that DeepStream's MaskTracker loads, and"
    yield f"`{CONFIG}`, which `segmenterConfigPath` of the tracker's own configuration names."
    yield f"Copy its files to `{INSTALLED}`."
    yield ""
    if deployment.backend == "tensorrt":
        tools = deployment.tools.items()
        release = next((version for name, version in tools if name.startswith("tensorrt")), "unknown")
        yield f"* The engines are for TensorRT {release} and the GPU above, and for no other: DeepStream 9.1 has"
        yield "  TensorRT 10.16. Where they do not fit, DeepStream builds its own of the ONNX files."
    else:
        yield "* DeepStream 8.0, 9.0 and 9.1 build engines of the ONNX files when they first start. A target with"
        yield "  `backend: tensorrt` gives engines, for one GPU and one release of TensorRT (DeepStream 9.1 has 10.16)."
    yield "* **What DeepStream builds has passed no gate of sam3_build.** With `networkMode: 1` TensorRT chooses which"
    yield "  layers run in FP16, whatever types the file has; no verdict above is about that."


def _why_none(deployment: Deployment) -> str | None:
    missing = [name for name in NEEDED if name not in deployment.networks]
    if deployment.backend not in LOADED:
        return "it takes ONNX files and TensorRT engines"
    if deployment.precision.onnx_type not in MODES or deployment.precision.quantizes:
        return f"it has no mode for {deployment.precision.name}"
    return f"{' and '.join(missing)} is not published" if missing else None


def _folder(deployment: Deployment) -> str:
    return f"deepstream/{deployment.precision.name}"


def _names(deployment: Deployment) -> list[str]:
    """Return the networks that are used: those of the memory both or not at all."""
    remembers = all(name in deployment.networks for name in MEMORY)
    return [name for name in SECTIONS if name in deployment.networks and (remembers or name not in MEMORY)]


def _batch(network: Network) -> int:
    """Return how many objects an engine takes at once; those that DeepStream builds take one."""
    if network.engine is None or "batch" not in network.component.symbolic_dims:
        return 1
    return max((profile["batch"][2] for profile in network.profiles), default=1)


def _engine(network: Network, precision: Precision) -> str:
    """Return the name that DeepStream gives to an engine of a network on the first GPU."""
    return f"{network.component.name}.onnx_b{_batch(network)}_gpu0_{MODES[precision.onnx_type][1]}.engine"


def _config(deployment: Deployment) -> Iterator[str]:
    mode, _ = MODES[deployment.precision.onnx_type]
    names = _names(deployment)
    tensors = {name: dims for network in deployment.networks.values() for name, dims in network.tensors.items()}
    _, channels, height, width = tensors["image"]
    yield from ("%YAML:1.0", "")
    yield "# Written by sam3_build for the networks beside it. Thresholds that are not here (minIouDiff4MemoryUpdate,"
    yield "# minMemoryUpdateConfidence, minIouPrevFrame4ProgBbox, minPromptUpdateConfidence) are for you to choose."
    yield "outputLabelNum: 1"
    yield f"hiddenDim: {tensors['pix_feat'][1]}"
    if "maskmem_features" in tensors:
        yield f"encoderFeatureDim: {tensors['maskmem_features'][1]}"
    yield f"inferDims: [{channels}, {height}, {width}]"
    yield "inputOrder: 0        # channels first"
    yield "colorFormat: 0       # RGB"
    yield "offsets: [123.675, 116.28, 103.53]"
    yield "netScaleFactor: 0.0174    # one for all channels; SAM 2 divides by 58.395, 57.12 and 57.375"
    yield "useVPICropScaler: 1"
    if "memory_encoder" in names:
        yield from ("updateMemBankPrompt: 1", "maskMemoryUpdateInterval: 1", "numConditionalMem: 1")
    for name in names:
        section, workspace = SECTIONS[name]
        network = deployment.networks[name]
        yield f"{section}:"
        yield f"  batchSize: {_batch(network)}"
        yield f"  workspaceSize: {workspace}"
        yield f"  networkMode: {mode}"
        yield f'  onnxFile: "{INSTALLED}/{name}.onnx"'
        yield f'  modelEngineFile: "{INSTALLED}/{_engine(network, deployment.precision)}"'
        if name == "memory_attention":
            yield "  builderOptimizationLevel: 5"


FORMAT = Format(name="deepstream", refuses=refuses, unfit=unfit, files=files, notes=lambda found: tuple(notes(found)))
