"""What SiT and U-ViT share: their sizes, their contract with a diffusion process, patches, time, positions, attention."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from smtool.config import Config
from smtool.spectrum.dct import full_precision

MAX_PERIOD = 10_000.0
"""Longest wavelength, in units of 2 pi, of the sinusoids of times and positions."""


@dataclass(frozen=True)
class Shape:
    """A published size: blocks, width of the tokens, attention heads."""

    depth: int
    width: int
    heads: int


@dataclass(frozen=True)
class Prediction:
    """What a network returns: output (B, C, h, w), which the process reads; tokens (B, T, width) after the tapped block."""

    output: Tensor
    tokens: Tensor | None = None


torch.export.register_dataclass(Prediction)  # so that FSDP's hooks find the tensors in it


class TransformerConfig(Config):
    """What the tables of both transformers have in common."""

    SIZES: ClassVar[dict[str, Shape]]
    WIDTH_MULTIPLE: ClassVar[tuple[int, str]]
    """What the width must be a multiple of, and what for."""

    size: str = Field("B", description='published size, or "custom": your own depth, width and heads')
    patch: int = Field(2, ge=1, description="latent cells a side in one token; published: 1, 2, 4, 8")
    depth: int = Field(0, ge=0, validate_default=True, description="blocks; absent: those of `size`")
    width: int = Field(0, ge=0, validate_default=True, description="numbers in a token; absent: those of `size`")
    heads: int = Field(0, ge=0, validate_default=True, description="attention heads, must divide width; absent: those of `size`")

    init: str = Field("", description="start from the weights of this file: of train-dit, SiT, REPA or U-ViT; empty: at random")

    @field_validator("depth", "width", "heads")
    @classmethod
    def _published_or_custom(cls, value: int, info: ValidationInfo) -> int:
        size, key = info.data.get("size"), info.field_name
        if size is None:
            return value  # `size` is reported on its own
        if size == "custom":
            if value == 0:
                raise ValueError(f'is required with size = "custom", which has no {key} of its own')
            return value
        published: int = getattr(cls.SIZES[size], str(key))
        if value not in (0, published):
            raise ValueError(f'is {published} in size "{size}", but is {value}; size = "custom" takes your own')
        return published

    @field_validator("width")
    @classmethod
    def _holds_sinusoids(cls, width: int) -> int:
        number, purpose = cls.WIDTH_MULTIPLE
        if width % number:
            raise ValueError(f"must be a multiple of {number} for {purpose}, but is {width}")
        return width

    @field_validator("heads")
    @classmethod
    def _divides_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width")
        if width and heads and width % heads:
            divisors = [n for n in range(1, width + 1) if width % n == 0]
            nearest = min(divisors, key=lambda n: abs(n - heads))
            raise ValueError(f"must divide width = {width}, but is {heads}; {nearest} does")
        return heads

    def token_grid(self, latent_shape: tuple[int, int, int]) -> tuple[int, int]:
        """Rows and columns of tokens of a latent (C, h, w); ValueError if patches do not tile it."""
        _, height, width = latent_shape
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"a latent of {height}x{width} cannot be cut into patches of patch = {self.patch}: "
                f"both sides must be multiples of it; patch = {math.gcd(height, width, self.patch)} works"
            )
        return height // self.patch, width // self.patch

    def build(self, latent_shape: tuple[int, int, int], num_classes: int) -> "LatentTransformer":
        """For latents (C, h, w) of num_classes classes; 0: unconditional."""
        raise NotImplementedError


class LatentTransformer(nn.Module, ABC):
    """A network that predicts, for noised latents and their time, what a diffusion process asks for.

    Labels are 0 ... num_classes - 1; class num_classes stands for "none" (label dropout, guidance). With num_classes = 0 there
    are no labels. Labels are not range-checked: on a GPU that would wait for it at every step.
    """

    depth: int
    """Blocks that can be tapped: `tap` is 1 ... depth."""

    def __init__(self, config: TransformerConfig, latent_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        if num_classes < 0:
            raise ValueError(f"num_classes is {num_classes}; 0 is a network without classes")
        self.token_grid = config.token_grid(latent_shape)
        self.latent_shape = latent_shape
        self.num_classes = num_classes
        self.width = config.width

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None, *, tap: int | None = None) -> Prediction:
        """x (B, C, h, w), t (B,) in the unit the process trains with, labels (B,) int64 or None if there are no classes.

        tap: also return the tokens after that many blocks, patches only, in row-major order of the token grid.
        """
        if x.shape[1:] != self.latent_shape:
            raise ValueError(f"latents are {_by(tuple(x.shape[1:]))}, but this network was built for {_by(self.latent_shape)}")
        if (labels is None) != (self.num_classes == 0):
            raise ValueError(
                "this network has no classes: pass labels = None"
                if self.num_classes == 0
                else f"this network has {self.num_classes} classes and needs labels; class {self.num_classes} stands for none"
            )
        if tap is not None and not 1 <= tap <= self.depth:
            raise ValueError(f"no tokens after block {tap}: this network has blocks 1 to {self.depth}")
        return self.predict(x, t, labels, tap)

    @abstractmethod
    def predict(self, x: Tensor, t: Tensor, labels: Tensor | None, tap: int | None) -> Prediction:
        """`forward` without its checks."""


class PatchEmbed(nn.Module):
    """Latents (B, C, h, w) -> tokens (B, T, width): the convolution `proj`, whose stride is its side, as one matrix product.

    The convolution itself would leave the tokens transposed in memory, and every sum with them thereafter.
    """

    def __init__(self, channels: int, width: int, *, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        p = self.patch
        patches = x.reshape(batch, channels, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches.reshape(batch, -1, channels * p * p), self.proj.weight.flatten(1), self.proj.bias)


def unpatchify(tokens: Tensor, *, grid: tuple[int, int], patch: int) -> Tensor:
    """(B, T, patch * patch * C), each token its patch as (row, column, channel) -> (B, C, h, w)."""
    patches = tokens.unflatten(1, grid).unflatten(3, (patch, patch, -1))  # (B, rows, columns, p, p, C)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, grid[0] * patch, grid[1] * patch)


def time_features(t: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size), float32 at least: cos || sin of t times size / 2 frequencies from 1 down to almost 1 / MAX_PERIOD."""
    half = size // 2
    t = full_precision(t)
    frequency = torch.exp(torch.arange(half, dtype=t.dtype, device=t.device) * (-math.log(MAX_PERIOD) / half))
    angle = t[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)


def position_table(grid: tuple[int, int], width: int) -> Tensor:
    """(T, width) float32, tokens row-major: the column in the first half, the row in the second, each sin || cos (facts 8.2).

    On the CPU, whatever the default device.
    """
    frequency = MAX_PERIOD ** (-torch.arange(width // 4, dtype=torch.float64, device="cpu") / (width // 4))
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64, device="cpu") for side in grid), indexing="ij")
    halves = [place.flatten()[:, None] * frequency for place in (column, row)]
    return torch.cat([part for angle in halves for part in (angle.sin(), angle.cos())], 1).float()


class SelfAttention(nn.Module):
    """Multi-head self-attention with the key names and the layout of timm's: queries, keys and values in one product."""

    def __init__(self, width: int, *, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()  # (B, heads, T, d)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two layers with a GELU between, four times as wide there."""

    def __init__(self, width: int, *, gelu: str) -> None:
        super().__init__()
        self.gelu = gelu
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
