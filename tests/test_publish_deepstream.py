"""What DeepStream's MaskTracker loads of a target: file names and configuration, held against the ONNX files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest
import yaml
from miniature import ROOT
from onnx import TensorProto, helper

from sam3_build import registry
from sam3_build.publish.format import Deployment, Network
from sam3_build.publish.formats.deepstream import CONFIG, FORMAT, INSTALLED, SECTIONS
from sam3_build.spec import Profile

Tensors = Mapping[str, tuple[int | str, ...]]

FAMILY = registry.family("sam2").laid_out("deepstream")

# Inputs and outputs of NVIDIA's export, as its README lists them; an open dim has a name.
CONTRACT: Mapping[str, tuple[Tensors, Tensors]] = {
    "image_encoder": (
        {"image": (1, 3, 1024, 1024)},
        {
            "pix_feat": (1, 256, 64, 64),
            "high_res_feat0": (1, 32, 256, 256),
            "high_res_feat1": (1, 64, 128, 128),
            "vision_feats": (1, 256, 64, 64),
            "vision_pos_embed": (4096, 1, 256),
        },
    ),
    "mask_decoder": (
        {
            "point_coords": ("batch", "num_points", 2),
            "point_labels": ("batch", "num_points"),
            "image_embed": ("batch", 256, 64, 64),
            "high_res_feats_0": (1, 32, 256, 256),
            "high_res_feats_1": (1, 64, 128, 128),
        },
        {
            "obj_ptr": ("batch", 256),
            "mask_for_mem": ("batch", 1, 1024, 1024),
            "pred_mask": ("batch", 1, 256, 256),
            "iou": ("batch", 1),
            "occ_logit": ("batch", 1),
        },
    ),
    "memory_attention": (
        {
            "current_vision_feat": (1, 256, 64, 64),
            "current_vision_pos_embed": (4096, 1, 256),
            "memory_0": ("batch", "num", 256),
            "memory_1": ("batch", "buff_size", 64, 64, 64),
            "memory_pos_embed": ("batch", "buff_size_embed", 64),
            "cond_frame_id_diff": (),
        },
        {"image_embed": ("batch", 256, 64, 64)},
    ),
    "memory_encoder": (
        {
            "mask_for_mem": ("batch", 1, 1024, 1024),
            "pix_feat": (1, 256, 64, 64),
            "occ_logit": ("batch", 1),
        },
        {
            "maskmem_features": ("batch", 64, 64, 64),
            "maskmem_pos_enc": ("batch", 4096, 64),
            "temporal_code": (7, 1, 1, 64),
        },
    ),
}
TRACKERS: Profile = {
    "batch": (1, 1, 1),
    "num_points": (1, 2, 2),
    "num": (1, 16, 16),
    "buff_size": (1, 7, 7),
    "buff_size_embed": (4100, 28736, 28736),
}


def network(folder: Path, name: str, engine: Path | None = None, profile: Profile = TRACKERS) -> Network:
    """Return a network of the family's declaration in full size; its ONNX file has the tensors and computes nothing."""
    component = FAMILY.component(name)
    shapes = {
        tensor.name: tuple(FAMILY.usual_static.get(d, d) if isinstance(d, str) else d for d in tensor.dims)
        for tensor in (*component.inputs, *component.outputs)
    }
    values = [
        [helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, shapes[tensor.name]) for tensor in side]
        for side in (component.inputs, component.outputs)
    ]
    path = folder / f"{name}.fp32.onnx"
    onnx.save(helper.make_model(helper.make_graph([], name, *values)), path)
    return Network(component, {path.name: path}, engine, shapes, (profile,))


def deployment(
    folder: Path, precision: str = "fp32", backend: str = "onnxruntime", **changed: Network | None
) -> Deployment:
    engine = folder / "x.engine" if backend == "tensorrt" else None
    networks = {name: network(folder, name, engine) for name in CONTRACT} | changed
    kept = {name: found for name, found in networks.items() if found}
    return Deployment("jetson", backend, registry.precision(precision), kept, {"tensorrt": "10.16.1.11"})


def config(files: Mapping[str, Path | bytes], precision: str = "fp32") -> dict[str, object]:
    """Return the configuration as a parser reads it; OpenCV's first line is none of YAML's."""
    text = files[f"deepstream/{precision}/{CONFIG}"]
    assert isinstance(text, bytes)
    first, _, rest = text.decode().partition("\n")
    assert first == "%YAML:1.0"
    found = yaml.safe_load(rest)
    assert isinstance(found, dict)
    return found


def dims(model: Path) -> dict[str, tuple[int | str, ...]]:
    graph = onnx.load(model).graph
    assert all(value.type.tensor_type.elem_type == TensorProto.FLOAT for value in (*graph.input, *graph.output))
    return {
        value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.output)
    }


def held_against_onnx(found: Mapping[str, object], files: Mapping[str, Path | bytes], folder: str) -> None:
    """Assert that every name and size of a configuration is that of the ONNX files beside it."""
    tensors: dict[str, tuple[int | str, ...]] = {}
    for name, (section, _) in SECTIONS.items():
        part = found[section]
        assert isinstance(part, dict) and part["onnxFile"] == f"{INSTALLED}/{name}.onnx"
        path = files[f"{folder}/{name}.onnx"]
        assert isinstance(path, Path)
        mine = dims(path)
        inputs, outputs = CONTRACT[name]
        assert list(mine) == [*inputs, *outputs]
        assert {tensor: len(shape) for tensor, shape in mine.items()} == {
            tensor: len(shape) for tensor, shape in {**inputs, **outputs}.items()
        }
        tensors |= mine
        assert Path(part["modelEngineFile"]).name.startswith(f"{name}.onnx_b{part['batchSize']}_gpu0_fp")
    assert found["inferDims"] == list(tensors["image"][1:])
    assert found["hiddenDim"] == tensors["pix_feat"][1] == tensors["obj_ptr"][1] == tensors["memory_0"][2]
    assert found["encoderFeatureDim"] == tensors["maskmem_features"][1] == tensors["memory_pos_embed"][2]


def test_the_configuration_is_that_of_the_onnx_files(tmp_path: Path) -> None:
    files = FORMAT.files(deployment(tmp_path))
    assert sorted(files) == sorted(
        f"deepstream/fp32/{name}" for name in (CONFIG, *(f"{name}.onnx" for name in CONTRACT))
    )
    found = config(files)
    held_against_onnx(found, files, "deepstream/fp32")
    assert found["outputLabelNum"] == 1 and (found["inputOrder"], found["colorFormat"]) == (0, 0)
    assert (found["offsets"], found["netScaleFactor"]) == ([123.675, 116.28, 103.53], 0.0174)
    assert found["numConditionalMem"] == 1
    assert found["MemoryAttention"] == {
        "batchSize": 1,
        "workspaceSize": 1000,
        "networkMode": 0,
        "onnxFile": f"{INSTALLED}/memory_attention.onnx",
        "modelEngineFile": f"{INSTALLED}/memory_attention.onnx_b1_gpu0_fp32.engine",
        "builderOptimizationLevel": 5,
    }


def test_names_order_and_sizes_in_full_size_are_the_contracts(tmp_path: Path) -> None:
    for name, (inputs, outputs) in CONTRACT.items():
        found = network(tmp_path, name)
        (path,) = found.graph.values()
        assert list(dims(path).items()) == [*inputs.items(), *outputs.items()], name
        assert [tensor.name for tensor in found.component.inputs] == list(inputs)


def test_the_sizes_follow_the_model(tmp_path: Path) -> None:
    """A configuration of constants would pass the test above."""
    found = network(tmp_path, "image_encoder")
    small = {**found.tensors, "image": (1, 3, 128, 96), "pix_feat": (1, 32, 8, 6)}
    changed = Network(found.component, found.graph, None, small, found.profiles)
    files = FORMAT.files(deployment(tmp_path, image_encoder=changed))
    assert config(files)["inferDims"] == [3, 128, 96]
    assert config(files)["encoderFeatureDim"] == 64


def test_external_data_keeps_the_name_that_the_graph_calls_it_by(tmp_path: Path) -> None:
    found = network(tmp_path, "image_encoder")
    graph = {**found.graph, "image_encoder.fp32.onnx.data": tmp_path / "data"}
    changed = Network(found.component, graph, None, found.tensors, found.profiles)
    files = FORMAT.files(deployment(tmp_path, image_encoder=changed))
    assert files["deepstream/fp32/image_encoder.fp32.onnx.data"] == tmp_path / "data"


@pytest.mark.parametrize(("precision", "mode"), [("fp16", 1), ("fp16_safe", 1), ("fp32", 0)])
def test_a_network_mode_is_the_type_of_the_file(tmp_path: Path, precision: str, mode: int) -> None:
    files = FORMAT.files(deployment(tmp_path, precision))
    section = config(files, precision)["MaskDecoder"]
    assert isinstance(section, dict) and section["networkMode"] == mode


@pytest.mark.parametrize("precision", ["bf16", "int8_matmul"])
def test_a_precision_that_the_tracker_has_no_mode_for_is_left_out_and_said(tmp_path: Path, precision: str) -> None:
    found = deployment(tmp_path, precision)
    assert FORMAT.files(found) == {}
    assert list(FORMAT.notes(found)) == [
        f"DeepStream's MaskTracker loads nothing of this: it has no mode for {precision}."
    ]


def test_without_one_of_the_memory_networks_it_segments_each_frame_alone(tmp_path: Path) -> None:
    files = FORMAT.files(deployment(tmp_path, memory_encoder=None))
    found = config(files)
    assert "MemoryAttention" not in found and "MaskDecoder" in found and "numConditionalMem" not in found
    assert {Path(name).name for name in files} == {CONFIG, "image_encoder.onnx", "mask_decoder.onnx"}
    lacking = deployment(tmp_path, mask_decoder=None)
    assert FORMAT.files(lacking) == {} and "mask_decoder is not published" in " ".join(FORMAT.notes(lacking))


def test_engines_have_the_names_that_deepstream_gives_them(tmp_path: Path) -> None:
    decoder = network(tmp_path, "mask_decoder", tmp_path / "d.engine", {**TRACKERS, "batch": (1, 4, 20)})
    found = deployment(tmp_path, "fp16", "tensorrt", mask_decoder=decoder)
    files = FORMAT.files(found)
    held_against_onnx(config(files, "fp16"), files, "deepstream/fp16")
    assert files["deepstream/fp16/mask_decoder.onnx_b20_gpu0_fp16.engine"] == tmp_path / "d.engine"
    assert files["deepstream/fp16/image_encoder.onnx_b1_gpu0_fp16.engine"] == tmp_path / "x.engine"
    section = config(files, "fp16")["MaskDecoder"]
    assert isinstance(section, dict) and section["batchSize"] == 20
    assert "The engines are for TensorRT 10.16.1.11 and the GPU above" in "\n".join(FORMAT.notes(found))


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_a_card_says_that_what_deepstream_builds_is_not_verified(tmp_path: Path, backend: str) -> None:
    text = " ".join("\n".join(FORMAT.notes(deployment(tmp_path, backend=backend))).split())
    assert "**What DeepStream builds has passed no gate of sam3_build.**" in text and "DeepStream 9.1" in text


@pytest.mark.ci
def test_the_miniature_is_published_for_deepstream_by_doit() -> None:
    """Builds, judges and publishes in this checkout's own store, as `make demo` does for the default manifest."""
    argv = [sys.executable, "-m", "doit", "manifest=sam2_mini_deepstream"]
    for goals in (["build:*.cpu", "verify"], ["publish:cpu"]):
        done = subprocess.run([*argv, *goals], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    folder = ROOT / "artifacts" / "sam2_mini_deepstream" / "published" / "cpu"
    for precision in ("fp32", "fp16"):
        mine = {str(path.relative_to(folder)): path for path in (folder / "deepstream" / precision).iterdir()}
        files = {name: path.read_bytes() if path.name == CONFIG else path for name, path in mine.items()}
        found = config(files, precision)
        held_against_onnx(found, files, f"deepstream/{precision}")
        assert found["inferDims"] == [3, 128, 128]
        text = (folder / f"mask_decoder.{precision}.md").read_text()
        assert "**What DeepStream builds has passed no gate of sam3_build.**" in text and "Apache-2.0" in text
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("deepstream/") == 10, done.stdout + done.stderr
    done = subprocess.run([*argv, "publish:rtx"], cwd=ROOT, capture_output=True, text=True, check=False)
    words = "unsuitable: DeepStream's MaskTracker runs TensorRT, which cannot load engines of TensorRT-RTX"
    assert done.returncode == 1 and words in " ".join(done.stdout.split()), done.stdout + done.stderr


def test_rtx_is_refused_and_openvino_is_published_for_others(tmp_path: Path) -> None:
    assert "cannot load engines of TensorRT-RTX" in str(FORMAT.refuses("tensorrt_rtx"))
    assert [FORMAT.refuses(name) for name in ("onnxruntime", "tensorrt", "openvino")] == [None] * 3
    found = deployment(tmp_path, backend="openvino")
    assert FORMAT.files(found) == {} and "takes ONNX files and TensorRT engines" in " ".join(FORMAT.notes(found))


@pytest.mark.parametrize(
    ("name", "dim", "span", "lacks"),
    [
        ("mask_decoder", "num_points", (2, 2, 4), "num_points from 1 to 2"),
        ("mask_decoder", "batch", (2, 4, 20), "batch from 1 to 1"),
        ("memory_attention", "num", (1, 8, 15), "num from 1 to 16"),
        ("memory_attention", "buff_size_embed", (4100, 4100, 28672), "buff_size_embed from 4100 to 28736"),
        ("memory_attention", "num_points", (2, 2, 4), None),
        ("image_encoder", "batch", (2, 4, 20), None),
        ("memory_encoder", "batch", (1, 4, 20), None),
    ],
)
def test_an_engine_takes_all_that_the_tracker_feeds_it(
    tmp_path: Path, name: str, dim: str, span: tuple[int, int, int], lacks: str | None
) -> None:
    profile = {**TRACKERS, dim: span}
    why = FORMAT.unfit(network(tmp_path, name, tmp_path / "e", profile))
    assert why == (f"no shape profile takes what MaskTracker feeds it: {lacks}" if lacks else None)
    assert FORMAT.unfit(network(tmp_path, name, None, profile)) is None, "of a graph DeepStream builds its own"
    assert FORMAT.unfit(network(tmp_path, name, tmp_path / "e")) is None
