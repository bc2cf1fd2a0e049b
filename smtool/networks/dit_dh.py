"""DiT-DH: LightningDiT with a shallow, wide head (RAE, arXiv 2510.11690, section 5; released-code.md#dit-dh)."""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from smtool.config import LARGEST_WIDTH
from smtool.networks.lightning_dit import LightningBlock, LightningFinalLayer, refuse_broken_pairs, rotation_of
from smtool.networks.sit import LabelEmbedder
from smtool.networks.transformer import (
    LatentTransformer,
    PatchEmbed,
    Prediction,
    Shape,
    TransformerConfig,
    position_table,
    through,
    unpatchify,
)
from smtool.spectrum.dct import full_precision, without_autocast

FREQUENCIES = 256
HEAD, NANO_HEAD = Shape(2, 2048, 16), Shape(2, 128, 4)


class DiTDH(TransformerConfig):
    """DiT-DH, with published or custom sizes. depth, width and heads are those of its body. Its time input is in [0, 1]."""

    SIZES: ClassVar[dict[str, Shape]] = {
        "nano": Shape(6, 96, 4),
        "S": Shape(12, 384, 6),
        "B": Shape(12, 768, 12),
        "L": Shape(24, 1024, 16),
        "XL": Shape(28, 1152, 16),
    }
    WIDTH_MULTIPLE: ClassVar[tuple[int, str]] = (4, "the sines and cosines of two coordinates")

    kind: Literal["dit-dh"] = "dit-dh"
    size: Literal["nano", "S", "B", "L", "XL", "custom"] = Field(
        "B", description='S to XL: published sizes; "nano": small, for CPUs; "custom": depth, width and heads as given'
    )
    head_depth: int = Field(0, ge=0, le=100, validate_default=True, description="number of blocks of the head; absent: 2")
    head_width: int = Field(
        0, ge=0, le=LARGEST_WIDTH, validate_default=True, description='width of the head; absent: 2048, and 128 in size "nano"'
    )
    head_heads: int = Field(
        0, ge=0, validate_default=True, description='attention heads of the head; absent: 16, and 4 in size "nano"'
    )

    @field_validator("head_depth", "head_width", "head_heads")
    @classmethod
    def _published_head(cls, value: int, info: ValidationInfo) -> int:
        head = NANO_HEAD if info.data.get("size") == "nano" else HEAD
        return value or getattr(head, str(info.field_name).removeprefix("head_"))

    @field_validator("heads", "head_heads")
    @classmethod
    def _rotates_pairs_of_both_axes(cls, heads: int, info: ValidationInfo) -> int:
        refuse_broken_pairs(info.data.get(str(info.field_name).replace("heads", "width")), heads)
        return heads

    def build(self, latent_shape: tuple[int, int, int], num_classes: int) -> "DiTDHNetwork":
        return DiTDHNetwork(self, latent_shape, num_classes)


class DiTDHNetwork(LatentTransformer):
    """The network of DiT-DH: a body that gives each token a condition, and a wide head on the latent itself, under it.

    Initially every block is the identity and the output is 0. Key names are the released code's, whose files also hold the tables
    of rotary positions, which are computed here. Only blocks of the body can be tapped.
    """

    def __init__(self, config: DiTDH, latent_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(config, latent_shape, num_classes)
        width, channels, head = config.width, latent_shape[0], config.head_width
        self.config = config
        self.depth = config.depth
        self.s_embedder = PatchEmbed(channels, width, patch=config.patch)
        self.x_embedder = PatchEmbed(channels, head, patch=config.patch)
        self.s_projector = nn.Linear(width, head) if width != head else nn.Identity()
        self.t_embedder = GaussianTimeEmbedder(width)
        self.y_embedder = LabelEmbedder(num_classes, width) if num_classes else None
        tokens = self.token_grid[0] * self.token_grid[1]
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, width), requires_grad=False)      # not trained, as published
        body = [LightningBlock(width, heads=config.heads, qk_norm=False) for _ in range(config.depth)]
        wide = [LightningBlock(head, heads=config.head_heads, qk_norm=False) for _ in range(config.head_depth)]
        self.blocks = nn.ModuleList([*body, *wide])
        self.final_layer = LightningFinalLayer(head, config.patch**2 * channels)
        self._initialize()

    def predict(self, x: Tensor, t: Tensor, labels: Tensor | None, tap: int | None) -> Prediction:
        tokens = self.s_embedder(x) + self.pos_embed
        time, condition = self._conditions(t, labels)
        rotation = rotation_of(tokens, self.token_grid, self.config.width // self.config.heads)
        tokens, tapped = through(self.blocks[: self.depth], tokens, tap, condition, rotation)
        of_tokens = self.s_projector(F.silu(time[:, None].to(tokens.dtype) + tokens))
        wide = self.x_embedder(x)
        rotation = rotation_of(wide, self.token_grid, self.config.head_width // self.config.head_heads)
        wide, _ = through(self.blocks[self.depth :], wide, None, of_tokens, rotation)
        output = unpatchify(self.final_layer(wide, of_tokens), grid=self.token_grid, patch=self.config.patch)
        return Prediction(output, tapped)

    def _conditions(self, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of the time alone, and SiLU of its sum with that of the class: (B, width), always in float32."""
        with without_autocast(t):
            time = self.t_embedder(t)
            return time, F.silu(time if self.y_embedder is None else time + self.y_embedder(labels))

    @torch.no_grad()
    def _initialize(self) -> None:
        """Initialize as the released code does: other linear layers keep PyTorch's initial weights (released-code.md#dit-dh)."""
        self.pos_embed.copy_(position_table(self.token_grid, self.config.width))
        for name, parameter in self.named_parameters():
            if "adaLN_modulation" in name or name.startswith("final_layer.linear") or name.endswith("_embedder.proj.bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("_embedder.proj.weight"):
                nn.init.xavier_uniform_(parameter.view(len(parameter), -1))      # the patch convolution as a matrix
            elif name in ("t_embedder.mlp.0.weight", "t_embedder.mlp.2.weight", "y_embedder.embedding_table.weight"):
                nn.init.normal_(parameter, std=0.02)


class GaussianTimeEmbedder(nn.Module):
    """Sines and cosines of 2 pi W t, with fixed random frequencies W ~ N(0, 1), through two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(FREQUENCIES), requires_grad=False)
        nn.init.normal_(self.W)
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angle = 2 * math.pi * full_precision(t)[:, None] * self.W
        return self.mlp(torch.cat([angle.sin(), angle.cos()], 1).to(self.W.dtype))
