"""Parts that the transformers share: recipe table, base class, patches, embeddings of time and position, attention."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from smtool.config import LARGEST_WIDTH
from smtool.networks.sizes import PublishedSizes
from smtool.spectrum.dct import full_precision

MAX_PERIOD = 10_000.0
"""Longest wavelength of the sinusoids of times and positions, in units of 2 pi."""


@dataclass(frozen=True)
class Shape:
    """A published size: number of blocks, token width, attention heads."""

    depth: int
    width: int
    heads: int


@dataclass(frozen=True)
class Prediction:
    """Result of a network. output: (B, C, h, w), the process's target; tokens: (B, T, width) after the tapped block, or None."""

    output: Tensor
    tokens: Tensor | None = None


torch.export.register_dataclass(Prediction)  # FSDP's hooks need to find the tensors in it


class TransformerConfig(PublishedSizes):
    """Keys of all transformers."""

    size: str = Field("B", description='published size, or "custom": depth, width and heads as given')
    patch: int = Field(2, ge=1, description="side of a token's patch in latent cells; published: 1, 2, 4, 8")
    depth: int = Field(0, ge=0, le=1000, validate_default=True, description="number of blocks; absent: that of `size`")
    width: int = Field(
        0, ge=0, le=LARGEST_WIDTH, validate_default=True, description="dimension of a token; absent: that of `size`"
    )
    heads: int = Field(
        0, ge=0, validate_default=True, description="number of attention heads, which must divide width; absent: that of `size`"
    )

    init: str = Field(
        "",
        description="start from the weights in this file of train-dit, SiT, REPA, LightningDiT, DiT-DH, U-ViT or DCTdiff; empty: "
        "random weights",
    )

    @property
    def has_null_class(self) -> bool:
        """Whether networks with classes embed a null class, which label dropout and guidance need."""
        return True

    def token_grid(self, latent_shape: tuple[int, int, int]) -> tuple[int, int]:
        """Rows and columns of tokens for a latent (C, h, w). Raises ValueError if patches do not tile it."""
        _, height, width = latent_shape
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"a latent of {height}x{width} cannot be cut into patches of patch = {self.patch}: "
                f"both sides must be multiples of it; patch = {math.gcd(height, width, self.patch)} works"
            )
        return height // self.patch, width // self.patch

    def build(self, latent_shape: tuple[int, int, int], num_classes: int) -> "LatentTransformer":
        """Build the network for latents (C, h, w) and num_classes classes (0: unconditional)."""
        raise NotImplementedError


class LatentTransformer(nn.Module, ABC):
    """A network that predicts the target of a diffusion process from noised latents and their time.

    Labels are 0 ... num_classes - 1; num_classes is the null class (label dropout, guidance), unless the config has none. With
    num_classes = 0 there are no labels. The range of labels is not checked, because the check would synchronize with the GPU in
    every step.
    """

    depth: int
    """Number of blocks that can be tapped: `tap` is 1 ... depth."""

    def __init__(self, config: TransformerConfig, latent_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        if num_classes < 0:
            raise ValueError(f"num_classes must be at least 0 (0: unconditional), but is {num_classes}")
        self.token_grid = config.token_grid(latent_shape)
        self.latent_shape = latent_shape
        self.num_classes = num_classes
        self.width = config.width

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None, *, tap: int | None = None) -> Prediction:
        """x: (B, C, h, w); t: (B,) in the process's network time; labels: (B,) int64, or None if there are no classes.

        tap: also return the tokens after this number of blocks, patches only, in row-major order of the token grid.
        Raises ValueError for other shapes, missing or unexpected labels, and a tap out of range.
        """
        if x.shape[1:] != self.latent_shape:
            raise ValueError(f"latents are {_by(tuple(x.shape[1:]))}, but this network was built for {_by(self.latent_shape)}")
        if (labels is None) != (self.num_classes == 0):
            raise ValueError(
                "this network has no classes: pass labels = None"
                if self.num_classes == 0
                else f"this network has {self.num_classes} classes and needs labels; the null class is {self.num_classes}"
            )
        if tap is not None and not 1 <= tap <= self.depth:
            raise ValueError(f"no tokens after block {tap}: this network has blocks 1 to {self.depth}")
        return self.predict(x, t, labels, tap)

    def tokens(self, x: Tensor, t: Tensor, labels: Tensor | None, *, tap: int) -> Tensor:
        """The tokens of `forward` after block `tap`; a network may leave out what comes after it."""
        tokens = self(x, t, labels, tap=tap).tokens
        assert isinstance(tokens, Tensor)
        return tokens

    @abstractmethod
    def predict(self, x: Tensor, t: Tensor, labels: Tensor | None, tap: int | None) -> Prediction:
        """`forward` without checks of its arguments."""


class PatchEmbed(nn.Module):
    """Latents (B, C, h, w) -> tokens (B, T, width): the convolution `proj`, with stride equal to its side, as a matrix product.

    The convolution operator would return tokens that are transposed in memory, and so would all later sums with them.
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


def through(blocks: Iterable[nn.Module], tokens: Tensor, tap: int | None, *more: Tensor) -> tuple[Tensor, Tensor | None]:
    """(tokens after all blocks, tokens after the first `tap` blocks or None). more: further arguments of every block."""
    tapped = None
    for number, block in enumerate(blocks, start=1):
        tokens = block(tokens, *more)
        if number == tap:
            tapped = tokens
    return tokens, tapped


def unpatchify(tokens: Tensor, *, grid: tuple[int, int], patch: int) -> Tensor:
    """(B, T, patch * patch * C), with each token's values ordered (row, column, channel) -> (B, C, h, w)."""
    patches = tokens.unflatten(1, grid).unflatten(3, (patch, patch, -1))  # (B, rows, columns, p, p, C)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, grid[0] * patch, grid[1] * patch)


def time_features(t: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size), float32 or float64: cos || sin of t times size / 2 frequencies from 1 to almost 1 / MAX_PERIOD."""
    half = size // 2
    t = full_precision(t)
    frequency = torch.exp(torch.arange(half, dtype=t.dtype, device=t.device) * (-math.log(MAX_PERIOD) / half))
    angle = t[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)


def position_table(grid: tuple[int, int], width: int) -> Tensor:
    """(T, width) float32, tokens row-major: sin || cos of the column in the first half, of the row in the second half.

    Always on the CPU. Source: released-code.md#sit.
    """
    frequency = MAX_PERIOD ** (-torch.arange(width // 4, dtype=torch.float64, device="cpu") / (width // 4))
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64, device="cpu") for side in grid), indexing="ij")
    halves = [place.flatten()[:, None] * frequency for place in (column, row)]
    return torch.cat([part for angle in halves for part in (angle.sin(), angle.cos())], 1).float()


class SelfAttention(nn.Module):
    """Multi-head self-attention with the key names and layout of timm: one product gives queries, keys and values."""

    def __init__(self, width: int, *, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()  # (B, heads, T, d)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a GELU between them; the hidden width is 4 times the token width unless it is given."""

    def __init__(self, width: int, *, gelu: str, hidden: int | None = None) -> None:
        super().__init__()
        self.gelu = gelu
        self.fc1 = nn.Linear(width, hidden or 4 * width)
        self.fc2 = nn.Linear(hidden or 4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
