"""The miniature with a detector that finds much: transformers' session of it, and our networks of the same tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np
import torch
from miniature import ROOT

from sam3_build import registry
from sam3_build.families.sam3_video.modules import video_config
from sam3_build.pipeline.tracking import POINTERS
from sam3_build.pipeline.word_settings import WordSettings
from sam3_build.torch_modules.assemble import assemble, compute

CODE = registry.family_code("sam3_video")
TEXTS = ([5, 6, 7], [9, 30, 7, 2])
SIDE = 112


def theirs():
    """Return transformers' module."""
    return import_module("transformers.models.sam3_video.modeling_sam3_video")


def config(**settings):
    """Return the miniature's config with other settings; NMS, holes and specks are off, as transformers has them."""
    mini = json.loads((ROOT / "manifests" / "sam3_video_mini.json").read_text())
    usual = {"low_res_mask_size": 32, "det_nms_thresh": 0.0, "fill_hole_area": 0}
    return CODE.modules.complete_config({**mini, **usual, **settings})


def transformers_model(seed, of, sure=2.0):
    """Return Sam3VideoModel with random weights, and queries that find something each.

    sure: what the tracker's logits of whether an object is in a frame are about
    """
    torch.manual_seed(seed)  # of the buffer that encodes points
    model = theirs().Sam3VideoModel(video_config(of)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            deviation = 1.2 / weight[0].numel() ** 0.5
        elif name.endswith("bias") and "norm" not in name:
            deviation = 0.1
        else:
            continue
        weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)
    detector = model.detector_model
    detector.detr_decoder.query_embed.weight.mul_(10)
    detector.dot_product_scoring.query_proj.weight.mul_(6)
    detector.detr_decoder.presence_head.layer3.bias.add_(3)
    # Logits of a deviation about 1, and memories that weigh less.
    detector.mask_decoder.mask_embedder.layers[2].weight.div_(8)
    for layer in model.tracker_model.memory_attention.layers:
        layer.cross_attn_image.o_proj.weight.div_(8)
    model.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(sure)
    for hypernetwork in model.tracker_model.mask_decoder.output_hypernetworks_mlps:
        hypernetwork.proj_out.weight.div_(4)
    return model


def networks(model, of):
    """Return component -> what runs it in PyTorch, of transformers' tensors."""
    held = model.state_dict()

    def tensor(name):
        stem, _, label = name.removesuffix(".weight").rpartition(".")
        if stem.endswith("point_embed"):
            return held[f"tracker_model.{stem}.weight"][int(label) : int(label) + 1]
        for ours, own in (
            ("detector.", "detector_model."),
            ("vision_encoder.backbone.", "detector_model.vision_encoder.backbone."),
            ("vision_encoder.neck.", "tracker_neck."),
        ):
            if name.startswith(ours):
                return held[own + name.removeprefix(ours)]
        return held[f"tracker_model.{name}"]

    family = CODE.family.laid_out("words")
    models = {}
    for component in family.components:
        names = CODE.modules.skeleton(component.name, of).state_dict()
        models[component.name] = assemble(CODE.modules, component.name, of, {n: tensor(n).clone() for n in names})

    def runs(component):
        outputs = [output.name for output in component.outputs]
        return lambda given, kind="": compute(models[component.name], given, outputs)

    return {component.name: runs(component) for component in family.components}


def frames(count, seed):
    """Return [count, 3, SIDE, SIDE]: patches that move to the right and change."""
    random = np.random.default_rng(seed)
    base = random.normal(size=(3, 14, 14)).astype(np.float32)
    changed = [base + 0.6 * random.normal(size=base.shape).astype(np.float32) for _ in range(count)]
    enlarged = [np.kron(one, np.ones((8, 8), np.float32)) for one in changed]
    return np.stack([np.roll(one, 4 * i, 2) for i, one in enumerate(enlarged)])


def prompted(run, of):
    """Return what the loop gets of TEXTS."""
    length = CODE.family.static_dims(of)["text_len"]
    ids = np.array([[*own, *[0] * (length - len(own))] for own in TEXTS], np.int64)
    mask = np.array([[1] * len(own) + [0] * (length - len(own)) for own in TEXTS], np.int64)
    arrays = {
        "input_boxes": np.zeros((1, 1, 4), np.float32),
        "input_boxes_labels": np.full((1, 1), -10, np.int64),
        "geometry_counts": np.array(False),
        "word_settings": WordSettings.of(of).array(),
        "image_size": np.array(SIDE),
    }
    return {**run["text_encoder"]({"input_ids": ids, "attention_mask": mask}), **arrays}, ids, mask


@dataclass
class Session:
    """transformers' session on some frames. followed: the objects before each frame, in its order

    To Sam3VideoModel a stream is a clip that ends with the current frame, so that distances of pointers are divided by
    another number in every frame. Here it is a long clip, as it is to Sam3TrackerVideoModel.
    """

    model: object
    pixels: np.ndarray
    streaming: bool = False
    followed: list[list[int]] = field(default_factory=list)

    def __post_init__(self):
        video = None if self.streaming else torch.from_numpy(self.pixels)
        self.state = theirs().Sam3VideoInferenceSession(
            video=video, video_height=100, video_width=120, dtype=torch.float32
        )
        if self.streaming:
            self.state.__class__ = type("Stream", (type(self.state),), {"num_frames": POINTERS})

    def ask(self, ids, mask):
        for text in range(len(ids)):
            self.state.add_prompt(f"text {text}")
            self.state.prompt_input_ids[text] = torch.from_numpy(ids[text : text + 1])
            self.state.prompt_attention_masks[text] = torch.from_numpy(mask[text : text + 1])

    def follow(self, position):
        """Return the output of a frame, its masks under the ids that they belong to.

        Where objects are removed, transformers gives the masks of all objects before to those that are left and new, in
        order, and then the new ones and those that are seen afresh their own; what has none any more is left out.
        """
        before = list(self.state.obj_ids)
        self.followed.append(before)
        given = {"frame": torch.from_numpy(self.pixels[position])} if self.streaming else {"frame_idx": position}
        output = self.model(self.state, **given)
        gone = [which for which in before if which not in output.object_ids]
        masks = {which: mask[0].numpy() for which, mask in output.obj_id_to_mask.items()}
        if gone:
            new = [which for which in output.object_ids if which not in before]
            own = {which: masks[which] for which in (*new, *self.afresh(position)) if which in masks}
            named = [which for which in before if which not in gone] + new
            masks = {old: masks[name] for name, old in zip(named, before, strict=False) if name not in own} | own
        return output, masks, gone

    def afresh(self, position):
        """Return the objects that are followed on, and that were seen afresh on a frame."""
        held = self.state.output_dict_per_obj
        ids = {which: held[i]["cond_frame_outputs"] for i, which in self.state._obj_idx_to_id.items()}
        return [which for which, frames in ids.items() if position in frames and which in self.followed[-1]]
