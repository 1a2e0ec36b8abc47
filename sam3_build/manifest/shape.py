"""The shape of a manifest file: pydantic models, and how a YAML tree is parsed into them. Knows nothing of plug-ins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema

from sam3_build.manifest.problems import Report, found, unknown, wording
from sam3_build.manifest.yaml_tree import Keys, Plain, Value
from sam3_build.pipeline import prompts
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.spec import Json, Range

# ------------------------------------------------------------------ values with a notation of their own


# What a 32-bit integer holds; no dimension of an image model comes near it.
LARGEST_SIZE = 2**31 - 1


def _range(given: object) -> Range:
    numbers = _numbers(given) if isinstance(given, list) else _numbers([given] * 3)
    if len(numbers) != 3 or not all(isinstance(n, int) for n in numbers):
        raise ValueError(f"must be one integer (fixed) or [min, opt, max], found {found(given)}")
    low, usual, high = (int(n) for n in numbers)
    if low < 0:
        raise ValueError(f"min is {low}, but a dimension has at least 0")
    if usual < 1:
        raise ValueError(f"opt is {usual}, but a dimension usually has at least 1")
    if not low <= usual <= high:
        raise ValueError(f"min <= opt <= max does not hold for [{low}, {usual}, {high}]")
    if high > LARGEST_SIZE:
        raise ValueError(f"max is {high}, but a dimension has at most {LARGEST_SIZE}")
    return low, usual, high


def _image_size(given: object) -> tuple[int, int]:
    numbers = _numbers(given) if isinstance(given, list) else _numbers([given] * 2)
    if len(numbers) != 2 or not all(isinstance(n, int) and 1 <= n <= LARGEST_SIZE for n in numbers):
        raise ValueError(f"must be one integer (a square) or [height, width] in pixels, found {found(given)}")
    height, width = (int(n) for n in numbers)
    return height, width


def _threshold(given: object) -> float | tuple[float, float]:
    numbers = _numbers(given) if isinstance(given, list) else _numbers([given])
    if len(numbers) != (2 if isinstance(given, list) else 1):
        raise ValueError(f"must be a number or [low, high], found {found(given)}")
    if numbers[0] > numbers[-1]:
        raise ValueError(f"low <= high does not hold for {given}")
    return (float(numbers[0]), float(numbers[1])) if isinstance(given, list) else float(numbers[0])


def _numbers(given: list[object]) -> list[int | float]:
    """Return `given` when it holds nothing but numbers, else nothing."""
    numbers = [n for n in given if isinstance(n, int | float) and not isinstance(n, bool)]
    return numbers if len(numbers) == len(given) else []


def _boxes(given: object) -> tuple[Box, ...]:
    return prompts.boxes(_text(given, "pos:40,40,30,30;neg:90,80,20,20"))


def _points(given: object) -> tuple[Point, ...]:
    return prompts.points(_text(given, "pos:40,40;neg:90,80"))


def _text(given: object, example: str) -> str:
    if not isinstance(given, str):
        raise ValueError(f"must be a string such as {example!r}, found {found(given)}")
    return given


SIZE: Mapping[str, Json] = {"type": "integer", "minimum": 1, "maximum": LARGEST_SIZE}
# A prompt may have no points, or no boxes.
MAY_BE_EMPTY: Mapping[str, Json] = {**SIZE, "minimum": 0}
SIZES: Mapping[str, Json] = {"type": "array", "items": MAY_BE_EMPTY, "minItems": 3, "maxItems": 3}

# What an editor is told of these; null, everywhere below the top, removes a key of an extended manifest.
RANGE: Mapping[str, Json] = {"anyOf": [SIZE, SIZES, {"type": "null"}]}
LABELLED: Mapping[str, Json] = {"type": "string", "pattern": "^ *(pos|neg) *:"}

PAIR: Mapping[str, Json] = {"type": "array", "items": SIZE, "minItems": 2, "maxItems": 2}

SpanField = Annotated[Range, PlainValidator(_range), WithJsonSchema(dict(RANGE))]
ImageSize = Annotated[tuple[int, int], PlainValidator(_image_size), WithJsonSchema({"anyOf": [SIZE, PAIR]})]
Threshold = Annotated[float | tuple[float, float], PlainValidator(_threshold), WithJsonSchema({})]  # by metric
Boxes = Annotated[tuple[Box, ...], PlainValidator(_boxes), WithJsonSchema(dict(LABELLED))]
Points = Annotated[tuple[Point, ...], PlainValidator(_points), WithJsonSchema(dict(LABELLED))]


# The exporter starts at 18. From 21 on GroupNormalization is another operator, and ONNX cannot infer the types of what
# the exporter makes of the decoder's: 18, 19 and 20 build, 21 does not.
Opset = Annotated[int, Field(ge=18, le=20)]


# ------------------------------------------------------------------ models


class _Mapping(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class RandomFile(_Mapping):
    """`checkpoint: {random: ...}`."""

    seed: int = Field(ge=0, description="Seed of every tensor's generator")
    config: str = Field(description="The model's config (JSON), relative to this file")


class CheckpointFile(_Mapping):
    """`checkpoint:`, exactly one of `random`, `path`, `hub` and `url`."""

    random: RandomFile | None = Field(None, description="Weights drawn from a seed; nothing is downloaded")
    path: str | None = Field(
        None, description="A safetensors file, its index, sam3.pt, or a folder with one of them, relative to this file"
    )
    hub: str | None = Field(None, description="A model at the Hugging Face hub, such as facebook/sam3")
    revision: str | None = Field(None, description="Commit (best), tag or branch at the hub; main when not given")
    url: str | None = Field(None, description="A checkpoint file to download, https://...; needs `sha256`")
    sha256: str | None = Field(None, description="The sha256 of the file at `url`: 64 hex digits")
    weights: str | None = Field(
        None, description="The state dict to take of a file that torch.save wrote and that holds several, such as ema"
    )
    config: str | None = Field(
        None, description="Config for `path`, `hub` or `url`, when it is not config.json beside them"
    )
    licence: str | None = Field(
        None, description="The weights' licence, a text file that is published, when it is not LICENSE beside them"
    )


class PrecisionFile(_Mapping):
    """`components: {<component>: {precisions: {<precision>: ...}}}`; the other keys are the precision's options."""

    model_config = ConfigDict(extra="allow")

    keep_fp32: tuple[str, ...] = Field((), description="fnmatch patterns on node names that stay FP32")


class ComponentFile(_Mapping):
    """`components: {<component>: ...}`."""

    opset: Opset | None = Field(None, description="ONNX opset of this component, 18 to 20")
    patches: tuple[str, ...] = Field((), description="Graph patches, in the order in which they run")
    precisions: dict[str, PrecisionFile] = Field({}, description="Options of a precision; does not select it")


class TargetFile(_Mapping):
    """`targets: {<target>: ...}`; the other keys are the backend's options."""

    model_config = ConfigDict(extra="allow")

    backend: str = Field(description="What builds and runs the engine")
    shape_profiles: tuple[str, ...] | None = Field(None, description="The profiles of its engines; all when not given")
    precisions: tuple[str, ...] | None = Field(
        None, description="What is built for it, of the precisions that the manifest selects; all when not given"
    )
    allow_unverified: bool = Field(
        False, description="Publish also what was not run, marked UNVERIFIED; never failures"
    )


class PromptFile(_Mapping):
    """What is asked of a picture; which keys there are, the family's pipelines say."""

    text: str | None = Field(None, description="A noun phrase such as 'red circle'")
    boxes: Boxes | None = Field(None, description="pos:x,y,w,h;neg:x,y,w,h in pixels")
    points: Points | None = Field(None, description="pos:x,y;neg:x,y in pixels")
    mask: str | None = Field(
        None, description="A picture as large as the sample's, relative to this file; what is not black is meant"
    )


class FramePromptFile(PromptFile):
    """`samples: [{video: ..., prompts: [...]}]`."""

    frame: int = Field(ge=0, description="The frame that it is on, 0 for the first of those that are taken")
    object: int | None = Field(None, ge=0, description="Which object is meant, by a number of your choice")
    remove: int | None = Field(None, ge=0, description="The object that is not followed from this frame on")


class SampleFile(PromptFile):
    """`samples: [...]`: a picture or a clip, with prompts."""

    image: str | None = Field(None, description="A picture, relative to this file")
    video: str | None = Field(None, description="A folder of pictures in the order of their names, or a video file")
    frames: int | None = Field(None, ge=1, description="How many frames of the clip are taken, from its first on")
    reverse: bool | None = Field(None, description="Whether the frames are taken from the last one to the first")
    prompts: tuple[FramePromptFile, ...] | None = Field(None, description="Prompts on frames of a clip")


# What Meta's code and most others take.
SCORE_THRESHOLD = 0.5


class TaskFile(_Mapping):
    """`task: ...`."""

    score_threshold: float = Field(
        SCORE_THRESHOLD, ge=0, le=1, allow_inf_nan=False, description="What an instance's score must be above, 0 to 1"
    )


class ManifestFile(_Mapping):
    """What is built, from what, for what, and how it is verified."""

    family: str = Field(description="The model family")
    layout: str | None = Field(None, description="How the model is cut into files; the family's usual way without")
    checkpoint: CheckpointFile = Field(
        description="Where the weights come from: exactly one of random, path, hub and url"
    )
    image_size: ImageSize | None = Field(
        None, description="Size of the pictures that networks see, in pixels: one number, or [height, width]"
    )
    reference: str = Field(description="Whose way of feeding a text-only prompt is the reference")
    tokenizer: str | None = Field(
        None, description="tokenizer.json, relative to this file; when not given, the one of the checkpoint's folder"
    )
    opset: Opset = Field(description="ONNX opset of all components that do not say their own, 18 to 20")
    components: dict[str, ComponentFile] = Field(description="The components to build")
    shape_profiles: dict[str, dict[str, SpanField]] = Field({}, description="Ranges of the dynamic dimensions, by name")
    precisions: tuple[str, ...] = Field(description="The precisions to build")
    targets: dict[str, TargetFile] = Field(description="What to build for")
    samples: tuple[SampleFile, ...] = Field(description="What PyTorch is shown, to verify against")
    task: TaskFile | None = Field(None, description="How instances are found in the samples")
    tolerances: dict[str, dict[str, dict[str, dict[str, Threshold]]]] = Field(
        {},
        description="Gates by precision, component, output and metric, instead of the default ones; component "
        "`pipeline` has the output `instances`",
    )

    def profiles_of(self, target: TargetFile) -> tuple[str, ...]:
        """Return the shape profiles of a target's engines: all where it names none."""
        return tuple(self.shape_profiles) if target.shape_profiles is None else target.shape_profiles

    def precisions_of(self, target: TargetFile) -> tuple[str, ...]:
        """Return the precisions of a target, in the manifest's order: all where it names none."""
        picked = self.precisions if target.precisions is None else target.precisions
        return tuple(name for name in self.precisions if name in picked)


# ------------------------------------------------------------------ what is wrong


def parse(root: Value, report: Report) -> ManifestFile:
    """Return the model of `root`. What has the wrong shape is reported and replaced by a stand-in, so that the rest can
    still be judged; callers must not use the result once `report` holds a problem.
    """
    data = root.plain()
    while True:
        try:
            return ManifestFile.model_validate_json(json.dumps(data))
        except ValidationError as e:
            for error in e.errors(include_url=False):
                keys = tuple(error["loc"])
                if error["type"] == "extra_forbidden":
                    report.add_key(keys, unknown("key", str(keys[-1]), _allowed(keys[:-1])))
                else:
                    report.add_broken(keys, wording(error))
                _replace(data, keys, error["type"])


def _allowed(keys: Keys) -> Iterable[str]:
    """Return the keys that the mapping at `keys` may have."""
    match keys:
        case ("checkpoint",):
            return CheckpointFile.model_fields
        case ("checkpoint", "random"):
            return RandomFile.model_fields
        case ("components", _):
            return ComponentFile.model_fields
        case ("samples", _):
            return SampleFile.model_fields
        case ("samples", _, "prompts", _):
            return FramePromptFile.model_fields
        case ("task",):
            return TaskFile.model_fields
    return ("extends", *ManifestFile.model_fields)


def _replace(data: Plain, keys: Keys, kind: str) -> None:
    """Put something of the right shape where `keys` points; an optional key just goes."""
    parent = data
    for key in keys[:-1]:
        parent = _child(parent, key)
    last = keys[-1]
    if isinstance(parent, list):
        assert isinstance(last, int)
        parent[last] = "" if kind == "string_type" else {}
        return
    assert isinstance(parent, dict)
    parent.pop(str(last), None)
    if kind == "missing":
        numbers: dict[str, Plain] = {"seed": 0, "opset": 18, "frame": 0}
        shapes: dict[str, Plain] = {"precisions": [], "samples": [], "checkpoint": {}, "components": {}, "targets": {}}
        parent[str(last)] = {**numbers, **shapes}.get(str(last), "")


def _child(data: Plain, key: str | int) -> Plain:
    if isinstance(data, list):
        return data[int(key)]
    assert isinstance(data, dict)
    return data[str(key)]
