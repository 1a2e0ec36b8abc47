"""Records what EfficientSAM3's own code computes, for tests that need neither it nor timm: see README.md.

    python record_efficientsam3.py FOLDER_OF_THE_AUTHORS_CODE end_to_end TRUNK TEXT_ENCODER CONTEXT
    python record_efficientsam3.py FOLDER_OF_THE_AUTHORS_CODE clicks TRUNK
    python record_efficientsam3.py FOLDER_OF_THE_AUTHORS_CODE parts

Weights are this program's from seed 0, brought to the authors' names by the inverse of families/efficientsam3/keys.py;
what no module of ours has is drawn here, and must not matter. Writes .npz files beside itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "tests"),
    str(HERE.parent),
    str(ROOT / "tests" / "families" / "sam3_image"),
    sys.argv[1] + "/sam3",
]

import meta_code  # noqa: E402, F401, I001  before what imports torchvision
import efficientsam3_cases as cases  # noqa: E402
from roi_align_oracle import roi_align  # noqa: E402

from sam3_build.families.efficientsam3 import keys  # noqa: E402
from sam3_build.weights import key_map  # noqa: E402


def stand_in_for_compiled_operators() -> None:
    """Pool as ONNX Runtime does where torchvision's compiled operator would."""
    import torchvision

    def pool(features: torch.Tensor, boxes: list[torch.Tensor], size: int) -> torch.Tensor:
        return roi_align(features, torch.stack(boxes), size)

    torchvision.ops.roi_align = pool


def fill(model: torch.nn.Module, ours: dict[str, torch.Tensor], prefix: str = "") -> None:
    """Give the authors' modules our weights, and random numbers to what ours do not have."""
    generator = torch.Generator().manual_seed(1)
    sections, taken = keys.IMAGE_MODEL.sections, set()
    for key, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        drawn = torch.randn(tensor.shape, generator=generator)
        name = key_map.translate(prefix + key, sections) or ""
        parts = [name.replace("*", part) for part in "qkv"] if "*" in name else [name]
        thirds = drawn.chunk(len(parts))
        tensor.copy_(torch.cat([ours.get(part, third) for part, third in zip(parts, thirds, strict=True)]))
        taken |= set(parts)
    model.train().eval()  # TinyViT keeps tables that it computed of its weights when it was last set to evaluation
    left = [name for name in ours if name not in taken and name.startswith(cases.roots_of(prefix))]
    assert not left, f"no tensor of the authors' is {left[:5]}"


def kind_and_size(trunk: str) -> tuple[str, str]:
    """Return what the authors' code calls a trunk."""
    if trunk.startswith("repvit_"):
        return "repvit", trunk.removeprefix("repvit_")
    kind, _, size = trunk.rpartition("_")
    return kind.replace("_", ""), size


def clicks(trunk: str) -> None:
    """The interactive predictor on a picture: what its mask decoder gives of each prompt, all three masks."""
    from sam3 import model_builder
    from sam3.model.sam1_task_predictor import SAM3InteractiveImagePredictor
    from sam3.model.vl_combiner import SAM3VLBackbone

    weights = cases.click_weights(cases.config(trunk))
    neck = model_builder._create_student_vision_backbone(*kind_and_size(trunk), None, True)
    tracker = model_builder.build_tracker(apply_temporal_disambiguation=False)
    with torch.no_grad():
        fill(neck, weights, cases.VISION)
        fill(tracker, weights, cases.TRACKER)
    tracker.backbone = SAM3VLBackbone(scalp=1, visual=neck, text=None)
    predictor = SAM3InteractiveImagePredictor(tracker, max_hole_area=0.0).eval()
    predictor.set_image(cases.picture())
    decoded = []
    tracker.sam_mask_decoder.register_forward_hook(lambda module, inputs, outputs: decoded.append(outputs))
    recorded = {"image_embeddings": cases.sampled("image_embeddings", predictor.get_image_embedding()).numpy()}
    for name, case in cases.CLICKS.items():
        predictor.predict(
            np.array(case.points) if case.points else None,
            np.array(case.labels) if case.points else None,
            np.array(case.box) if case.box else None,
            cases.earlier_mask()[0].numpy() if case.has_mask else None,
            multimask_output=True,
        )
        masks, scores, _, visible = decoded.pop()
        found = {"low_res_masks": masks, "iou_predictions": scores, "object_score_logits": visible}
        recorded |= {f"{name}/{key}": cases.sampled(key, value).numpy() for key, value in found.items()}
    np.savez_compressed(HERE / f"{trunk}.clicks.npz", **recorded)


def end_to_end(trunk: str, text_encoder: str, context: int) -> None:
    from sam3.model.data_misc import FindStage
    from sam3.model_builder import build_efficientsam3_image_model

    kind, size = kind_and_size(trunk)
    model = build_efficientsam3_image_model(
        device="cpu", backbone_type=kind, model_name=size,
        text_encoder_type=text_encoder, text_encoder_context_length=context,
    )  # fmt: skip
    config = cases.config(trunk, text_encoder, context)
    with torch.no_grad():
        fill(model, cases.weights(config))
    stage = FindStage(
        img_ids=torch.tensor([0]), text_ids=torch.tensor([0]), input_boxes=None, input_boxes_mask=None,
        input_boxes_label=None, input_points=None, input_points_mask=None,
    )  # fmt: skip
    recorded = {}
    with torch.inference_mode():
        encoded = model.backbone.forward_image(cases.image())
        for name, case in cases.CASES.items():
            text = model.backbone.language_backbone.tokenizer([case.text], context_length=context)
            recorded[f"{name}/input_ids"] = text.numpy()
            state = {**encoded, **model.backbone.forward_text([case.text], device="cpu")}
            prompt = model._get_dummy_prompt()
            for box, label in zip(case.boxes, case.labels, strict=True):
                prompt.append_boxes(torch.tensor(box).view(1, 1, 4), torch.tensor([bool(label)]).view(1, 1))
            out = model.forward_grounding(
                backbone_out=state, find_input=stage, geometric_prompt=prompt, find_target=None
            )
            found = {
                "pred_logits": out["pred_logits"][..., 0],
                "pred_boxes": out["pred_boxes_xyxy"],
                "pred_masks": out["pred_masks"],
                "presence_logits": out["presence_logit_dec"].reshape(1, 1),
            }
            recorded |= {f"{name}/{key}": cases.sampled(key, value).numpy() for key, value in found.items()}
    np.savez_compressed(HERE / f"{cases.file_name(trunk, text_encoder, context)}.npz", **recorded)


def parts() -> None:
    """Each trunk on a small picture, each text encoder at each context length."""
    from sam3 import model_builder

    recorded = {}
    for trunk in cases.TRUNKS:
        kind, size = kind_and_size(trunk)
        neck = model_builder._create_student_vision_backbone(kind, size, None, False)
        student = neck.trunk.model
        if kind == "tinyvit":  # it knows its maps' sizes beforehand
            from sam3.backbones import tiny_vit

            build = getattr(tiny_vit, f"{trunk}_224")
            student.backbone.model = build(img_size=cases.SIDE, num_classes=0).eval()
        neck.eval()
        with torch.no_grad():
            fill(student, cases.trunk_weights(trunk), keys.TRUNK)
            recorded[trunk] = student.backbone(cases.image(cases.SIDE)).numpy()[:, :: cases.EVERY]
    for name in cases.TEXT_ENCODERS:
        for context in cases.CONTEXTS:
            encoder = model_builder._create_student_text_encoder(None, name, 77).eval()
            encoder.set_context_length(context)
            with torch.no_grad():
                fill(encoder, cases.text_weights(name, context), keys.LANGUAGE)
                mask, memory, _ = encoder([cases.WORDS], device="cpu")
                ids = encoder.tokenizer([cases.WORDS], context_length=context)
            recorded |= {
                f"{name}/{context}/input_ids": ids.numpy(),
                f"{name}/{context}/text_mask": ~mask.numpy(),
                f"{name}/{context}/text_features": memory.transpose(0, 1).numpy()[:, :, :: cases.EVERY],
            }
    np.savez_compressed(HERE / "parts.npz", **recorded)


if __name__ == "__main__":
    stand_in_for_compiled_operators()
    if sys.argv[2] == "parts":
        parts()
    elif sys.argv[2] == "clicks":
        clicks(sys.argv[3])
    else:
        end_to_end(*sys.argv[3:5], int(sys.argv[5]))
