"""What the tests of this family share: the miniature's config, its weights from seed 0, its samples' cases."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from miniature import CONFIG, SCENES, SOURCE, TOKENIZER
from roi_align_oracle import roi_align
from sam3_cases import cases_of

SAMPLES = [
    {"image": "image0", "text": "red circle", "boxes": []},
    {
        "image": "image0",
        "text": None,
        "boxes": [{"label": 1, "xywh": (40, 40, 30, 30)}, {"label": 0, "xywh": (90, 80, 20, 20)}],
    },
    {"image": "image1", "text": "star", "boxes": [{"label": 0, "xywh": (10, 10, 40, 40)}]},
]
IMAGES = {"image0": SCENES / "scene1.png", "image1": SCENES / "scene2.png"}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Test processes share the cores; more threads than cores make small networks slower by far."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def config():
    return json.loads(CONFIG.read_text())


@pytest.fixture(scope="session")
def tensors(config):
    """Component -> checkpoint key -> tensor, from seed 0."""
    import sam3_weights as weights

    from sam3_build.families.sam3_image.family import FAMILY

    listed = weights.inventory(SOURCE, config, None)
    return {c.name: weights.load(c.name, SOURCE, config, None, listed[c.name]) for c in FAMILY.components}


@pytest.fixture(scope="session")
def modules(config, tensors):
    """Component -> module with the weights of seed 0."""
    import sam3_weights as weights

    return {name: weights.assemble(name, config, loaded) for name, loaded in tensors.items()}


@pytest.fixture(scope="session")
def cases(config):
    """Reference -> case name -> input name -> tensor."""
    return {
        reference: {
            case.name: {name: torch.from_numpy(array) for name, array in case.arrays.items()}
            for case in cases_of(reference, SAMPLES, TOKENIZER, IMAGES, config)
        }
        for reference in ("meta", "hf")
    }


@pytest.fixture(scope="session")
def run(modules):
    """Return a function that runs all components on the inputs of a case and gives every tensor by name."""
    from sam3_build.families.sam3_image.family import FAMILY

    def run_all(case):
        known = dict(case)
        for step in FAMILY.pipelines[0].steps:
            component = FAMILY.component(step.component)
            for feed in step.feeds:
                parts = [known[output] for _, output in feed.sources if output in known]
                known[feed.input] = torch.cat(parts, dim=feed.axis) if len(parts) > 1 else parts[0]
            if all(tensor.name in known for tensor in component.inputs):
                with torch.no_grad():
                    outputs = modules[component.name](**{t.name: known[t.name] for t in component.inputs})
                known.update(zip([t.name for t in component.outputs], outputs, strict=True))
        return known

    return run_all


@pytest.fixture(scope="session")
def sam3(config, tensors):
    """transformers' Sam3Model, with random numbers in the tensors that no component holds: they must not matter."""
    import sam3_weights as weights

    from sam3_build.torch_modules.sam3 import modeling

    torch.manual_seed(1)
    model = modeling().Sam3Model(weights.sam3_config(config))
    held = {key: tensor for loaded in tensors.values() for key, tensor in loaded.items()}
    others = {k: torch.randn(t.shape) for k, t in model.state_dict().items() if k not in held}
    model.load_state_dict({**held, **others}, strict=True)
    return model.eval()


@pytest.fixture
def onnx_roi_align(monkeypatch):
    """Let transformers pool with the operator's definition, as ONNX Runtime implements it; torchvision is not here."""
    from sam3_build.torch_modules.sam3 import modeling

    def pool(features, boxes, size):
        stacked = torch.stack(boxes)
        if not stacked.numel():
            return features.new_zeros(0, features.shape[1], size, size)
        return roi_align(features, stacked, size)

    monkeypatch.setattr(modeling(), "torchvision", SimpleNamespace(ops=SimpleNamespace(roi_align=pool)), raising=False)
