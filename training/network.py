"""The network to train: the project's own components around one Sam3Model's parameters.

Runs what the exported files compute, plus what only training needs: the outputs of every decoder layer, further groups
of queries, a semantic mask, and an answer for every cell of the coarsest level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam3_build.families.sam3_image.config import sam3_config
from sam3_build.families.sam3_image.modules import skeleton
from sam3_build.spec import Json
from sam3_build.torch_modules.sam3 import compute_tables, modeling
from sam3_build.torch_modules.wrapping import additive
from training.scenes import COLOURS, SHAPES

if TYPE_CHECKING:
    from transformers.models.sam3.modeling_sam3 import Sam3DetrDecoderLayer


@dataclass(frozen=True)
class Answers:
    """Layers l, groups g of queries (the first is the model's own), questions q, queries n; boxes are cxcywh."""

    logits: Tensor  # [l, g, q, n]
    boxes: Tensor  # [l, g, q, n, 4]
    presence: Tensor  # [l, q]
    queries: Tensor  # [q, n, hidden], of the last layer and first group
    memory: Tensor  # [q, cells, hidden]
    prompt: Tensor
    prompt_mask: Tensor  # additive


class Learner(nn.Module):
    """All parameters of a Sam3Model, and those that training adds and nobody keeps."""

    def __init__(self, config: Mapping[str, Json], groups: int = 1, attention: str = "sdpa") -> None:
        """Draw all parameters from torch's own generator; `groups` counts the model's own queries too."""
        super().__init__()
        parsed = sam3_config(config)
        self.model = modeling().Sam3Model(parsed)
        hidden, queries = parsed.detr_decoder_config.hidden_size, parsed.detr_decoder_config.num_queries
        self.groups = groups
        self.further_queries = nn.Parameter(torch.empty(groups - 1, queries, hidden))
        self.further_points = nn.Parameter(torch.empty(groups - 1, queries, 4))
        self.cell_head = modeling().Sam3DecoderMLP(hidden, hidden, 5, 3)
        self.sight_head = modeling().Sam3DecoderMLP(hidden, hidden, 5 + len(COLOURS) + len(SHAPES), 2)
        initialise(self)
        shared = dict(self.model.named_parameters())
        self.parts = SimpleNamespace()  # not registered: they hold the model's own parameters
        for name in ("vision_encoder", "text_encoder", "geometry_encoder", "decoder"):
            part = skeleton(name, config)
            part.load_state_dict({key: shared[key] for key in part.state_dict()}, strict=True, assign=True)
            compute_tables(part)
            for module in part.modules():
                if hasattr(module, "config") and hasattr(module.config, "_attn_implementation"):
                    module.config._attn_implementation = attention
            setattr(self.parts, name, part.eval())

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return three levels of features and the coarsest one's positions."""
        levels: tuple[Tensor, Tensor, Tensor, Tensor] = self.parts.vision_encoder(images)
        return levels

    def glance(self, images: Tensor) -> Tensor:
        """Return what the coarsest level alone says of each cell, [p, cells, 5 + colours + shapes]: see losses.py."""
        vision = self.parts.vision_encoder.vision_encoder
        tokens = vision.backbone(images).last_hidden_state
        side = math.isqrt(tokens.shape[1])
        level = vision.neck.fpn_layers[2](torch.unflatten(tokens, 1, (side, side)).permute(0, 3, 1, 2))
        predicted: Tensor = self.sight_head(level.flatten(2).transpose(1, 2))
        return predicted

    def prompt(
        self, levels: tuple[Tensor, ...], picture: Tensor, text: Tensor, ids: Tensor, mask: Tensor, boxes: Tensor,
        labels: Tensor, counts: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the joined prompt [q, tokens, hidden] and which tokens count; `counts` [q]: whether geometry does."""
        words, valid = self.parts.text_encoder(ids, mask)
        geometry, valid_boxes = self.parts.geometry_encoder(boxes, labels, levels[2][picture], levels[3][picture])
        return torch.cat([words[text], geometry], dim=1), torch.cat([valid[text], valid_boxes & counts[:, None]], dim=1)

    def answer(self, level: Tensor, positions: Tensor, prompt: Tensor, valid: Tensor) -> Answers:
        """Return what every layer says; `level` and `positions` are [q, hidden, height, width]."""
        decoder = self.parts.decoder
        detr = decoder.detr_decoder
        attention_mask = additive(valid)
        memory = decoder.detr_encoder(
            vision_features=[level], text_features=prompt, vision_pos_embeds=[positions], text_mask=attention_mask
        ).last_hidden_state
        rows, _, height, width = positions.shape
        keys = memory + positions.flatten(2).transpose(1, 2)
        starts = torch.cat([detr.reference_points.weight[None], self.further_points])  # [g, n, 4]
        embeds = torch.cat([detr.query_embed.weight[None], self.further_queries])
        count = embeds.shape[1]
        # Tokens lie as [q, g, 1 + n, hidden]: groups do not see each other, each has a presence token of its own.
        boxes = starts.sigmoid().flatten(0, 1).expand(rows, -1, -1)
        token = detr.presence_token.weight.expand(self.groups, 1, -1)
        tokens = torch.cat([token, embeds], dim=1).flatten(0, 1).expand(rows, -1, -1)
        logits, all_boxes, presences = [], [], []
        for layer in detr.layers:
            by_row, by_column = detr.coordinates.distances(boxes, height, width)
            by_row = detr.box_rpb_embed_y(by_row).permute(0, 3, 1, 2)[..., None]
            by_column = detr.box_rpb_embed_x(by_column).permute(0, 3, 1, 2)[..., None, :]
            bias = (by_row + by_column).flatten(3)  # [q, heads, g * n, cells]
            tokens = self._layer(
                layer, tokens, detr.ref_point_head(detr.coordinates.sine(boxes)), prompt, attention_mask, memory, keys,
                self._with_presence(bias, 2),
            )  # fmt: skip
            grouped = torch.unflatten(tokens, 1, (self.groups, 1 + count))
            queries = detr.output_layer_norm(grouped[:, :, 1:].flatten(1, 2))
            boxes = detr.coordinates.refine(boxes, detr.box_head(queries))
            scores = decoder.dot_product_scoring(queries[None], prompt, valid)[0].squeeze(-1)
            logits.append(scores.unflatten(1, (self.groups, count)).transpose(0, 1))
            all_boxes.append(boxes.unflatten(1, (self.groups, count)).transpose(0, 1))
            presence = detr.presence_head(detr.presence_layer_norm(grouped[:, 0, 0]))[:, 0]
            presences.append(presence.clamp(-detr.clamp_presence_logit_max_val, detr.clamp_presence_logit_max_val))
            boxes = boxes.detach()
        last = queries.unflatten(1, (self.groups, count))[:, 0]
        return Answers(
            torch.stack(logits), torch.stack(all_boxes), torch.stack(presences), last, memory, prompt, attention_mask
        )

    def _with_presence(self, values: Tensor, dim: int) -> Tensor:
        """Put zeros for the presence token before every group's queries."""
        grouped = torch.unflatten(values, dim, (self.groups, -1))
        pad = [0, 0] * (values.ndim - dim - 1) + [1, 0]
        return functional.pad(grouped, pad).flatten(dim, dim + 1)

    def _layer(
        self, layer: Sam3DetrDecoderLayer, tokens: Tensor, position: Tensor, prompt: Tensor, prompt_mask: Tensor,
        memory: Tensor, keys: Tensor, bias: Tensor,
    ) -> Tensor:  # fmt: skip
        """Compute a decoder layer as transformers does, with self-attention inside each group only."""
        position = self._with_presence(position, 1)
        rows = tokens.shape[0]
        apart = torch.unflatten(tokens + position, 1, (self.groups, -1)).flatten(0, 1)
        values = torch.unflatten(tokens, 1, (self.groups, -1)).flatten(0, 1)
        looked = layer.self_attn(query=apart, key=apart, value=values)[0].unflatten(0, (rows, self.groups))
        tokens = layer.self_attn_layer_norm(tokens + looked.flatten(1, 2))
        looked = layer.text_cross_attn(query=tokens + position, key=prompt, value=prompt, attention_mask=prompt_mask)[0]
        tokens = layer.text_cross_attn_layer_norm(tokens + looked)
        looked = layer.vision_cross_attn(query=tokens + position, key=keys, value=memory, attention_mask=bias)[0]
        tokens = layer.vision_cross_attn_layer_norm(tokens + looked)
        predicted: Tensor = layer.mlp_layer_norm(tokens + layer.mlp(tokens))
        return predicted

    def masks(
        self, levels: tuple[Tensor, ...], picture: Tensor, answers: Answers, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return instance masks [rows, n, h, w] and the semantic mask [rows, 1, h, w] of some questions, as logits."""
        decoder = self.parts.decoder.mask_decoder
        memory, prompt, mask = answers.memory[rows], answers.prompt[rows], answers.prompt_mask[rows]
        looked = decoder.prompt_cross_attn(
            query=decoder.prompt_cross_attn_norm(memory), key=prompt, value=prompt, attention_mask=mask
        )[0]
        height, width = levels[2].shape[-2:]
        cells = (memory + looked).unflatten(1, (height, width)).permute(0, 3, 1, 2)
        chosen = picture[rows]
        pixels = decoder.pixel_decoder([levels[0][chosen], levels[1][chosen], cells])
        # Both projections are linear: the instance one moves to the queries, which are far fewer than pixels.
        embeds = decoder.mask_embedder(answers.queries[rows])
        weight, bias = decoder.instance_projection.weight[:, :, 0, 0], decoder.instance_projection.bias
        flat = pixels.flatten(2)
        instances = (embeds @ weight) @ flat + (embeds @ bias)[..., None]
        semantic = self.model.mask_decoder.semantic_projection(pixels)
        return instances.unflatten(2, pixels.shape[-2:]), semantic


def initialise(learner: Learner) -> None:
    """Draw all parameters: transformers' deviation of 0.02 is for widths of 1000, and here starves every layer."""
    for module in learner.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_in = module.weight.shape[0] if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
            nn.init.normal_(module.weight, std=fan_in**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
    detr = learner.model.detr_decoder
    nn.init.normal_(learner.model.vision_encoder.backbone.embeddings.position_embeddings, std=0.1)
    nn.init.normal_(learner.further_queries, std=0.5)
    for points in (detr.reference_points.weight.data, *learner.further_points.data):
        points.copy_(spread_points(len(points)))
    for head in (detr.box_head, learner.cell_head):
        nn.init.zeros_(head.layer3.weight)
    nn.init.zeros_(detr.box_rpb_embed_x.layer2.weight)
    nn.init.zeros_(detr.box_rpb_embed_y.layer2.weight)


def spread_points(count: int) -> Tensor:
    """Return start boxes as logits [count, 4]: centres on a grid, a little off it, a quarter of the picture wide."""
    columns = math.ceil(math.sqrt(count))
    lines = math.ceil(count / columns)
    index = torch.arange(count)
    x = (index % columns + 0.5) / columns
    y = (index // columns + 0.5) / lines
    centres = torch.stack([x, y], dim=1) + 0.06 * (torch.rand(count, 2) - 0.5)
    return torch.logit(torch.cat([centres, torch.full((count, 2), 0.25)], dim=1).clamp(0.02, 0.98))
