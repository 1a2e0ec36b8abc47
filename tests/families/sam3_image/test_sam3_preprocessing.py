"""Pictures become the network's input as by transformers' own image processor, whose code is cut out of its files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers_code
from build_space import ROOT
from miniature import CONFIG
from PIL import Image

from sam3_build import registry
from sam3_build.pipeline import images

BACKENDS, PROCESSOR = "image_processing_backends.py", "models/sam3/image_processing_sam3.py"
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.png"))
# Photographs beside the checkout, where there are any.
PHOTOGRAPHS = sorted((ROOT.parent / "shared" / "data" / "images").glob("*.jpg"))

# Pillow and torch filter in integers of their own, and round differently where a value is near a half: by one of 255
# grey levels. So of one value in six where the sizes have a small ratio, 810 to 1008, and of one in 200 or fewer else.
LEVEL = 2 / 255


def interpolated(image: torch.Tensor, size: tuple[int, int], interpolation: str, antialias: bool) -> torch.Tensor:
    """What torchvision's `resize` calls for bytes on a CPU; it is not installed here."""
    assert interpolation == "bilinear" and antialias and image.dtype == torch.uint8
    return torch.nn.functional.interpolate(image, size=size, mode="bilinear", antialias=True)


def normalized(image: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, inplace: bool) -> torch.Tensor:
    return image.sub(mean[:, None, None]).div(std[:, None, None])


def processed(picture: Image.Image, side: int) -> np.ndarray:
    """Return what `Sam3ImageProcessor` makes of a picture, at another size than its own."""
    given = {
        "torch": torch,
        "PILImageResampling": Image.Resampling,
        "pil_torch_interpolation_mapping": {Image.Resampling.BILINEAR: "bilinear"},
        "tvF": SimpleNamespace(
            resize=interpolated, normalize=normalized, InterpolationMode=SimpleNamespace(LANCZOS="lanczos")
        ),
        "is_torchdynamo_compiling": lambda: False,
    }
    names = ("resize", "normalize", "_fuse_mean_std_and_rescale_factor", "rescale_and_normalize")
    own = SimpleNamespace()
    for name, method in transformers_code.cut(BACKENDS, names, given).items():
        setattr(own, name, method.__get__(own))
    edges = dict.fromkeys(("shortest_edge", "longest_edge", "max_height", "max_width"))
    size = SimpleNamespace(height=side, width=side, **edges)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].contiguous()
    pixels = own.resize(image=pixels, size=size, resample=Image.Resampling.BILINEAR)
    return np.asarray(own.rescale_and_normalize(pixels, True, 1 / 255, True, [0.5] * 3, [0.5] * 3))


def levels(file: Path, side: int) -> np.ndarray:
    """Return by how many grey levels the two differ."""
    picture, config = images.read(file), json.loads(CONFIG.read_bytes())
    config["vision_config"]["backbone_config"]["image_size"] = side
    (found,) = registry.family_code("sam3_image").prompts.picture_arrays(picture, config).values()
    expected = processed(picture, side)
    assert found.shape == expected.shape == (1, 3, side, side) and found.dtype == expected.dtype
    return np.abs(found - expected) / LEVEL


def test_the_processor_is_the_one_that_is_restated_here() -> None:
    values = transformers_code.assigned(PROCESSOR, "Sam3ImageProcessor")
    constants = transformers_code.assigned("utils/constants.py")
    assert values["resample"] == "PILImageResampling.BILINEAR" and values["do_pad"] == "None"
    assert [values[f"do_{what}"] for what in ("resize", "rescale", "normalize", "convert_rgb")] == ["True"] * 4
    assert [constants[values[name]] for name in ("image_mean", "image_std")] == ["[0.5, 0.5, 0.5]"] * 2
    assert "rescale_factor" not in values and values["size"] == "{'height': 1008, 'width': 1008}"


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
@pytest.mark.parametrize("side", [168, 1008])
def test_the_projects_pictures_are_prepared_within_a_grey_level(file: Path, side: int) -> None:
    apart = levels(file, side)
    assert apart.max() < 1.001
    if images.read(file).size == (side, side):
        assert apart.max() < 1e-4


@pytest.mark.skipif(not PHOTOGRAPHS, reason="no ../shared/data/images beside the checkout")
@pytest.mark.parametrize("file", PHOTOGRAPHS, ids=lambda file: file.name)
def test_photographs_are_prepared_within_a_grey_level(file: Path) -> None:
    apart = levels(file, 1008)
    assert apart.max() < 1.001 and apart.mean() < 0.2


def test_another_filter_is_told_apart() -> None:
    """The bound of one level is no bound that anything keeps."""
    picture = images.read(ROOT / "manifests" / "samples" / "scene2.png")
    for filtered in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC, Image.Resampling.BOX):
        other = np.asarray(picture.resize((168, 168), filtered), np.float32).transpose(2, 0, 1) / 127.5 - 1
        assert np.abs(other - processed(picture, 168)[0]).max() > 5 * LEVEL
