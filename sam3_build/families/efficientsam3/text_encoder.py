"""MobileCLIP's text encoder as EfficientSAM3 distilled it: token ids to features of every token. Workers only.

Names are those of Apple's code. Padding is attended to, as it was in training; the mask that leaves says which tokens
are none, for what reads the features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam3_build.torch_modules.conv_norm import sequence
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sam3_build.families.efficientsam3.variants import TextConfig

# Of the convolutions over tokens in MobileCLIP-S0's first and last layer.
KERNEL = 11


def text_encoder(config: TextConfig, features: int) -> nn.Module:
    """Return the component: input_ids and attention_mask [batch, tokens] -> [batch, tokens, features], mask."""
    import torch
    from torch import nn

    width = config.hidden_size
    embedding, norm, projection = (
        nn.Embedding(config.vocab_size, width),
        nn.LayerNorm(width),
        nn.Linear(width, features),
    )
    table = nn.Parameter(torch.zeros(1, 1, config.max_position_embeddings, width))
    mixers = [[_mixer(width)] if config.use_repmixer_blocks else [] for _ in range(2)]
    transformer = nn.Sequential(*mixers[0], *(_layer(config) for _ in range(config.num_hidden_layers)), *mixers[1])
    positions = container()
    positions.register_parameter("pos_embed", table)

    def forward(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        encoded = transformer(embedding(input_ids) + positions.get_parameter("pos_embed")[0])
        return projection(norm(encoded)), attention_mask.to(torch.bool)

    encoder = container(
        embedding_layer=embedding,
        positional_embedding=container(pos_embed=positions),
        transformer=transformer,
        final_layer_norm=norm,
    )
    return override(container(text_encoder=encoder, text_projection=projection), forward)


def _layer(config: TextConfig) -> nn.Module:
    """Return a transformer's layer, norms first."""
    from torch import nn

    width = config.hidden_size
    attention = nn.Sequential(nn.LayerNorm(width), _attention(config))
    mlp = nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Identity(), nn.Linear(4 * width, width)
    )

    def forward(x: Tensor) -> Tensor:
        x = x + attention(x)
        mixed: Tensor = x + mlp(x)
        return mixed

    return override(container(pre_norm_mha=attention, pre_norm_ffn=mlp), forward)


def _attention(config: TextConfig) -> nn.Module:
    import torch
    from torch import nn

    width, heads = config.hidden_size, config.num_attention_heads
    qkv_proj, out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(x: Tensor) -> Tensor:
        q, k, v = qkv_proj(x).unflatten(2, (3, heads, -1)).transpose(1, 3).unbind(2)
        scores = (q * (width // heads) ** -0.5) @ k.transpose(2, 3)
        if config.is_causal:
            length = x.shape[1]
            scores = scores + torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
        attended: Tensor = out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return attended

    return override(container(qkv_proj=qkv_proj, out_proj=out_proj), forward)


def _mixer(width: int) -> nn.Module:
    """Return a layer of MobileCLIP-S0 that mixes neighbouring tokens by convolutions, which lie side by side."""
    import torch
    from torch import nn

    def over_tokens() -> nn.Conv2d:
        return nn.Conv2d(width, width, (1, KERNEL), padding=(0, KERNEL // 2), groups=width, bias=False)

    norm, skip = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
    branch = sequence(conv=over_tokens(), bn=nn.BatchNorm2d(width))
    token_mixer = container(
        norm=container(rbr_skip=norm), mixer=container(rbr_skip=skip, rbr_conv=nn.ModuleList([branch]))
    )
    convffn = sequence(
        conv=sequence(conv=over_tokens(), bn=nn.BatchNorm2d(width)),
        fc1=nn.Conv2d(width, 4 * width, 1),
        act=nn.GELU(),
        fc2=nn.Conv2d(4 * width, width, 1),
    )
    block = container(token_mixer=token_mixer, convffn=convffn)
    for module in (token_mixer, block):
        module.register_parameter("layer_scale", nn.Parameter(torch.ones(width, 1, 1)))

    def forward(tokens: Tensor) -> Tensor:
        x = tokens.transpose(1, 2)[:, :, None]
        x = x + token_mixer.layer_scale * (skip(x) + branch(x) - norm(x))
        x = x + block.layer_scale * convffn(x)
        mixed: Tensor = x[:, :, 0].transpose(1, 2)
        return mixed

    return override(block, forward)
