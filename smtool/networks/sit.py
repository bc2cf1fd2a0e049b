"""SiT: a transformer conditioned on time and class by adaptive layer norms.

Sources: arXiv 2401.08740, arXiv 2410.06940, released-code.md#sit.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from smtool.networks.recompute import Recomputable
from smtool.networks.transformer import (
    MLP,
    LatentTransformer,
    PatchEmbed,
    Prediction,
    SelfAttention,
    Shape,
    TransformerConfig,
    position_table,
    through,
    time_features,
    unpatchify,
)
from smtool.spectrum.dct import without_autocast

TIME_FEATURES = 256


class SiT(TransformerConfig):
    """The scalable interpolant transformer (SiT), with published or custom sizes. Its time input is in [0, 1]."""

    SIZES: ClassVar[dict[str, Shape]] = {
        "nano": Shape(6, 128, 4),
        "S": Shape(12, 384, 6),
        "B": Shape(12, 768, 12),
        "L": Shape(24, 1024, 16),
        "XL": Shape(28, 1152, 16),
    }
    WIDTH_MULTIPLE: ClassVar[tuple[int, str]] = (4, "the sines and cosines of two coordinates")

    kind: Literal["sit"] = "sit"
    size: Literal["nano", "S", "B", "L", "XL", "custom"] = Field(
        "B", description='S to XL: published sizes; "nano": small, for CPUs; "custom": depth, width and heads as given'
    )

    def build(self, latent_shape: tuple[int, int, int], num_classes: int) -> "SiTNetwork":
        return SiTNetwork(self, latent_shape, num_classes)


class ConditionedTransformer(LatentTransformer):
    """Blocks on patches with a table of positions, under one condition, of time and class: SiT and LightningDiT.

    Subclasses build `blocks` and `final_layer`, and then initialize all weights.
    """

    blocks: nn.ModuleList
    final_layer: nn.Module

    def __init__(self, config: TransformerConfig, latent_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(config, latent_shape, num_classes)
        self.config = config
        self.depth = config.depth
        self.x_embedder = PatchEmbed(latent_shape[0], config.width, patch=config.patch)
        self.t_embedder = TimeEmbedder(config.width)
        self.y_embedder = LabelEmbedder(num_classes, config.width) if num_classes else None
        tokens = self.token_grid[0] * self.token_grid[1]
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, config.width), requires_grad=False)  # not trained, as published

    def predict(self, x: Tensor, t: Tensor, labels: Tensor | None, tap: int | None) -> Prediction:
        tokens = self.x_embedder(x) + self.pos_embed
        condition = self._condition(t, labels)
        tokens, tapped = through(self.blocks, tokens, tap, condition, *self.of_positions(tokens))
        output = unpatchify(self.final_layer(tokens, condition), grid=self.token_grid, patch=self.config.patch)
        return Prediction(output, tapped)

    def of_positions(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Further arguments of every block, which depend on the positions of tokens."""
        return ()

    def tokens(self, x: Tensor, t: Tensor, labels: Tensor | None, *, tap: int) -> Tensor:
        tokens, condition = self.x_embedder(x) + self.pos_embed, self._condition(t, labels)
        positions = self.of_positions(tokens)
        for block in self.blocks[:tap]:
            tokens = block(tokens, condition, *positions)
        return tokens

    def _condition(self, t: Tensor, labels: Tensor | None) -> Tensor:
        """(B, width), always in float32: bfloat16 cannot represent differences below 0.004 of times near 1."""
        with without_autocast(t):
            condition = self.t_embedder(time_features(t, TIME_FEATURES).to(self.pos_embed.dtype))
            return condition if self.y_embedder is None else condition + self.y_embedder(labels)


class SiTNetwork(ConditionedTransformer):
    """The network of SiT. Initially every block is the identity and the output is 0 (adaLN-zero). Key names are REPA's."""

    def __init__(self, config: SiT, latent_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(config, latent_shape, num_classes)
        self.blocks = nn.ModuleList(SiTBlock(config.width, heads=config.heads) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.width, config.patch**2 * latent_shape[0])
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        """Initialize as the released code does (released-code.md#sit)."""
        for name, parameter in self.named_parameters():
            if name == "pos_embed":
                parameter.copy_(position_table(self.token_grid, self.config.width))
            elif name.endswith("bias") or "adaLN_modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(parameter)
            elif name.startswith(("t_embedder", "y_embedder")):
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.xavier_uniform_(parameter.view(len(parameter), -1))  # the patch convolution as a matrix


class TimeEmbedder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, features: Tensor) -> Tensor:
        return self.mlp(features)


class LabelEmbedder(nn.Module):
    """An embedding for each class, and a last one for the null class."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)


class SiTBlock(Recomputable):
    """Attention, then MLP. The condition c gives a shift and scale of each normalized input, and a gate of each output."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads=heads, qkv_bias=True)
        self.mlp = MLP(width, gelu="tanh")
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation(self.adaLN_modulation, x, c).chunk(6, dim=-1)
        x = torch.addcmul(x, gate_1, self.attn(_modulated(x, shift_1, scale_1)))
        return torch.addcmul(x, gate_2, self.mlp(_modulated(x, shift_2, scale_2)))


class FinalLayer(nn.Module):
    def __init__(self, width: int, out_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out_size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = modulation(self.adaLN_modulation, x, c).chunk(2, dim=-1)
        return self.linear(_modulated(x, shift, scale))


def modulation(layers: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    """Of a condition (B, width): (B, 1, n * width); of one per token (B, T, width): (B, T, n * width).

    In the dtype of x: in bfloat16, 1 + scale would round scales below 0.004 away.
    """
    found: Tensor = layers(c)
    return (found if c.ndim == x.ndim else found[:, None]).to(x.dtype)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(x) (1 + scale) + shift; LN has no parameters."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)
