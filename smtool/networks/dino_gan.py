"""The discriminator of RAE: trained heads on token maps of a frozen DINO (arXiv 2510.11690; released-code.md#rae).

The frozen transformer is built by `smtool.features.trunk` and handed in by `attach`.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from smtool.config import LARGEST_WIDTH, LossConfig

DEPTHS = (2, 5, 8, 11)
"""Blocks, counted from 0, whose tokens have a head each; the last block's have a second one."""
KERNEL, SLOPE, EPS = 9, 0.2, 1e-6


class DinoGAN(LossConfig):
    """Five heads of convolutions over the tokens of a frozen DINO ViT-S/8, which sees every image at 224 px."""

    kind: Literal["dino"] = "dino"
    trunk: str = Field(
        "vit_small_patch8_224.dino", description="the frozen network: a ViT of timm with 12 blocks; published: DINO's ViT-S/8"
    )
    channels: int = Field(384, ge=1, le=LARGEST_WIDTH, description="width of its tokens and of the heads")

    def learned_from(self) -> tuple[str, ...]:
        return (f"timm:{self.trunk}",)

    @property
    def smallest_input(self) -> int:
        return 1

    @property
    def title(self) -> str:
        return f"discriminator on {self.trunk}"

    def build(self) -> "DinoDiscriminator":
        return DinoDiscriminator(self)


class DinoDiscriminator(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> logits (B, heads * T), T tokens of the trunk.

    trunk: module that maps images to token maps (heads, B, channels, T), without parameters in its state dict; an empty
    nn.Sequential until `attach`.
    """

    def __init__(self, config: DinoGAN) -> None:
        super().__init__()
        self.config = config
        self.trunk: nn.Module = nn.Sequential()
        self.heads = nn.ModuleList(TokenHead(config.channels) for _ in range(len(DEPTHS) + 1))

    def attach(self, trunk: nn.Module, *, dim: int) -> None:
        """Use a frozen trunk with tokens of width `dim`. Raises ValueError if it is not `channels`."""
        if dim != self.config.channels:
            raise ValueError(f"{self.config.trunk} has tokens of width {dim}, but the recipe states {self.config.channels}")
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        if isinstance(self.trunk, nn.Sequential):
            raise ValueError(f"the frozen network {self.config.trunk} of this discriminator was not loaded")
        maps: Tensor = self.trunk(images)
        return torch.cat([head(tokens).flatten(1) for head, tokens in zip(self.heads, maps, strict=True)], 1)


class TokenHead(nn.Module):
    """Tokens (B, C, T) -> logits (B, 1, T): a block of kernel 1, a residual block of kernel 9, a convolution to one channel.

    Kernels reach from the last token to the first. All convolutions have spectral norm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = TokenBlock(channels, kernel=1)
        self.mix = TokenBlock(channels, kernel=KERNEL)
        self.leave = spectral_norm(nn.Conv1d(channels, 1, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.enter(tokens)
        logits: Tensor = self.leave((x + self.mix(x)) * 0.5**0.5)
        return logits


class TokenBlock(nn.Module):
    """Convolution, normalization of each channel over an image's tokens with trained scale and shift, LeakyReLU.

    The normalization is a batch norm over virtual batches of one image, without running statistics.
    """

    def __init__(self, channels: int, *, kernel: int) -> None:
        super().__init__()
        self.conv = spectral_norm(nn.Conv1d(channels, channels, kernel, padding=kernel // 2, padding_mode="circular"))
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.leaky_relu(F.instance_norm(self.conv(tokens), weight=self.scale, bias=self.shift, eps=EPS), SLOPE)
