"""LightningDiT: SiT with RMS norms, SwiGLU and rotary positions (arXiv 2501.01423, released-code.md#lightningdit)."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from smtool.networks.recompute import Recomputable
from smtool.networks.sit import ConditionedTransformer, modulation
from smtool.networks.transformer import MAX_PERIOD, Shape, TransformerConfig, position_table
from smtool.spectrum.dct import constant


class LightningDiT(TransformerConfig):
    """LightningDiT, with published or custom sizes. Its time input is in [0, 1]."""

    SIZES: ClassVar[dict[str, Shape]] = {
        "nano": Shape(6, 128, 4),
        "B": Shape(12, 768, 12),
        "L": Shape(24, 1024, 16),
        "XL": Shape(28, 1152, 16),
        "1p0B": Shape(24, 1536, 24),
        "1p6B": Shape(28, 1792, 28),
    }
    WIDTH_MULTIPLE: ClassVar[tuple[int, str]] = (4, "the sines and cosines of two coordinates")

    kind: Literal["lightning-dit"] = "lightning-dit"
    size: Literal["nano", "B", "L", "XL", "1p0B", "1p6B", "custom"] = Field(
        "B", description='B to 1p6B: published sizes; "nano": small, for CPUs; "custom": depth, width and heads as given'
    )
    qk_norm: bool = Field(False, description="RMS norm of queries and keys; the published networks have none")

    @field_validator("heads")
    @classmethod
    def _rotates_pairs_of_both_axes(cls, heads: int, info: ValidationInfo) -> int:
        refuse_broken_pairs(info.data.get("width"), heads)
        return heads

    def build(self, latent_shape: tuple[int, int, int], num_classes: int) -> "LightningDiTNetwork":
        return LightningDiTNetwork(self, latent_shape, num_classes)


class LightningDiTNetwork(ConditionedTransformer):
    """The network of LightningDiT. Initially every block is the identity and the output is 0. Key names are the released code's,
    whose files also hold the tables of rotary positions, which are computed here."""

    def __init__(self, config: LightningDiT, latent_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(config, latent_shape, num_classes)
        self.head_size = config.width // config.heads
        self.blocks = nn.ModuleList(
            LightningBlock(config.width, heads=config.heads, qk_norm=config.qk_norm) for _ in range(config.depth)
        )
        self.final_layer = LightningFinalLayer(config.width, config.patch**2 * latent_shape[0])
        self._initialize()

    def of_positions(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return (rotation_of(tokens, self.token_grid, self.head_size),)

    @torch.no_grad()
    def _initialize(self) -> None:
        """Initialize as the released code does (released-code.md#lightningdit)."""
        for name, parameter in self.named_parameters():
            if name == "pos_embed":
                parameter.copy_(position_table(self.token_grid, self.config.width))
            elif "norm" in name:
                nn.init.ones_(parameter)
            elif name.endswith("bias") or "adaLN_modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(parameter)
            elif name.startswith("y_embedder") or (name.startswith("t_embedder") and name.endswith("weight")):
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.xavier_uniform_(parameter.view(len(parameter), -1))      # the patch convolution as a matrix


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-6) times a learned scale; the mean is over the last dimension."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=1e-6) * self.weight.to(x.dtype)


class RotaryAttention(nn.Module):
    """Multi-head self-attention with queries and keys rotated by the position of their token (`rotary_table`)."""

    def __init__(self, width: int, *, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = RMSNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()      # (B, heads, T, d)
        query, key = (rotated(part, rotation) for part in (self.q_norm(query), self.k_norm(key)))
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """W3 (SiLU(a) b), where a and b are the halves of W12 x, of int(2/3 x 4 width) numbers each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = int(2 / 3 * (4 * width))
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class LightningBlock(Recomputable):
    """Attention, then SwiGLU. The condition c gives a shift and scale of each normalized input, and a gate of each output."""

    def __init__(self, width: int, *, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attn = RotaryAttention(width, heads=heads, qk_norm=qk_norm)
        self.mlp = SwiGLU(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor, rotation: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation(self.adaLN_modulation, x, c).chunk(6, dim=-1)
        x = torch.addcmul(x, gate_1, self.attn(torch.addcmul(shift_1, self.norm1(x), 1 + scale_1), rotation))
        return torch.addcmul(x, gate_2, self.mlp(torch.addcmul(shift_2, self.norm2(x), 1 + scale_2)))


class LightningFinalLayer(nn.Module):
    def __init__(self, width: int, out_size: int) -> None:
        super().__init__()
        self.norm_final = RMSNorm(width)
        self.linear = nn.Linear(width, out_size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = modulation(self.adaLN_modulation, x, c).chunk(2, dim=-1)
        return self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))


def refuse_broken_pairs(width: int | None, heads: int) -> None:
    """Raise ValueError unless each head has pairs of numbers for rows and for columns. width: None if it is invalid itself."""
    if width and heads and (width % heads or width // heads % 4):
        raise ValueError(
            f"a head must have a multiple of 4 numbers, pairs for rows and for columns, but {heads} of width {width} have "
            f"{width / heads:g}"
        )


def rotary_table(grid: tuple[int, int], size: int) -> Tensor:
    """(2, T, size / 2) float64, on the CPU: cosines and sines of the turns of a head's pairs of numbers, tokens row-major.

    Pair i of an axis turns by position / MAX_PERIOD^(i / pairs) radians: by the token's row in the first half of the head, by its
    column in the second.
    """
    pairs = size // 4
    frequency = MAX_PERIOD ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    row, column = (torch.arange(side, dtype=torch.float64)[:, None] * frequency for side in grid)
    angle = torch.cat([row[:, None].expand(-1, grid[1], -1), column[None].expand(grid[0], -1, -1)], -1).flatten(0, 1)
    return torch.stack([angle.cos(), angle.sin()])


_rotation = constant(rotary_table)


def rotation_of(tokens: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """`rotary_table` on the device of tokens, in their precision but at least float32; computed once."""
    return _rotation(grid, size, dtype=torch.promote_types(tokens.dtype, torch.float32), device=tokens.device)


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """x (B, heads, T, d), of which adjacent numbers are pairs, turned by `rotary_table`, in the table's precision; x's dtype."""
    cos, sin = rotation
    first, second = x.to(rotation.dtype).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([first * cos - second * sin, second * cos + first * sin], -1).flatten(-2).to(x.dtype)
