"""A family that is no Segment Anything model: a table of names, and two networks with what SAM 3 does not have."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from sam3_build.family_code import Format, KeyTables, Reshape, Section
from sam3_build.spec import ComponentSpec, Layout, ModelFamily, TensorSpec

SECTIONS = (
    Section("trunk.units.", "body.layers.", ((r"\bqkv\.", "*."), (r"\bbn\.", "norm."))),
    Section("trunk.", "body.", ((r"^table$", "positions"),)),
    Section("exit.", "head.", ((r"^matrix$", "weight"),)),
)
TABLES = KeyTables(
    model="the Kite model",
    whole="Kite",
    formats=(
        Format("our own names", ("body.", "head.")),
        Format(
            "the kites' authors",
            ("trunk.", "exit."),
            "net.",
            ("teacher.",),
            SECTIONS,
            (("an exit that is not used", r"exit\.unused\..*"),),
            {"head.weight": Reshape(transposed=True), "body.positions": Reshape(axis=0, skip=1)},
        ),
    ),
    other_models=(("a Dragon", r"wings\."),),
    tied={"head.positions": "body.positions"},
    scales=(("body.layers.*.norm.weight", (0.0, 1e-3)),),
)


class Layer(nn.Module):
    """Three projections that the authors keep in one tensor, and a BatchNorm with its statistics."""

    def __init__(self) -> None:
        super().__init__()
        for name in "qkv":
            setattr(self, name, nn.Linear(4, 4, bias=False))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm((self.q(x) * self.k(x) + self.v(x)).transpose(1, 2)).transpose(1, 2)


class Body(nn.Module):
    """A table of positions that is a buffer and a weight, one that is computed, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Buffer(torch.zeros(5, 4))
        self.register_buffer("sines", torch.zeros(5, 4), persistent=False)
        self.layers = nn.ModuleList([Layer()])

    def forward(self, x):
        return self.layers[0](x + self.positions + self.sines)


class Head(nn.Module):
    """A matrix, and the body's table of positions under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3))
        self.positions = nn.Buffer(torch.zeros(5, 4))

    def forward(self, y):
        return (y + self.positions) @ self.weight


class Network(nn.Module):
    """A part under its name in the whole model; its inputs have dots in their names."""

    def __init__(self, name: str, part: nn.Module) -> None:
        super().__init__()
        self.add_module(name, part)
        self.name = name

    def forward(self, maps_0, maps_1):
        part = getattr(self, self.name)
        return part(maps_0), part(maps_1 * 2)


def skeleton(network, config):
    with torch.device("meta"):
        return Network(network, {"body": Body, "head": Head}[network]())


def compute_tables(model):
    for module in model.modules():
        if isinstance(module, Body):
            module.sines = torch.arange(20.0).view(5, 4).sin()


def whole_model(config):
    parts = (skeleton(name, config) for name in ("body", "head"))
    return {key: tuple(tensor.shape) for part in parts for key, tensor in part.state_dict().items()}


def component(name: str, width: int) -> ComponentSpec:
    inputs = tuple(TensorSpec(f"maps.{i}", "float32", ("batch", 5, 4)) for i in range(2))
    outputs = tuple(TensorSpec(f"{name}.{i}", "float32", ("batch", 5, width)) for i in range(2))
    return ComponentSpec(name, inputs, outputs, (name,))


FAMILY = ModelFamily(
    name="kite",
    layouts={"v1": Layout((component("body", 4), component("head", 3)), (), ("batch",))},
    references={"own": "its own code"},
    static_dims=lambda config: {},
    largest_tensor=lambda name, config: 0,
)
MODULES = SimpleNamespace(
    DYNAMIC_SIZES={"batch": 2},
    skeleton=skeleton,
    compute_tables=compute_tables,
    whole_model=whole_model,
    complete_config=dict,
)
CODE = SimpleNamespace(family=FAMILY, keys=TABLES, modules=MODULES)
