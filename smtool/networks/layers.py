"""Blocks of the SD-VAE, with the key names of diffusers' `AutoencoderKL`.

Sources: released-code.md#sd-vae, released-code.md#keys-of-diffusers.
"""

from itertools import pairwise, zip_longest
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smtool.devices import is_autocast_on
from smtool.networks.norm_silu import norm_only, norm_silu
from smtool.networks.recompute import Recomputable

DownsamplePad = Literal["asymmetric", "symmetric"]
Padding = Literal["zeros", "reflect"]


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResnetBlock(Recomputable):
    """GN -> SiLU -> conv3 -> GN -> SiLU -> conv3, added to the input; a 1x1 shortcut if the width changes."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(norm_silu(self.norm1, x))
        h = self.conv2(norm_silu(self.norm2, h))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(Recomputable):
    """Self-attention over all positions with one head of the full width, added to the input."""

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.group_norm = group_norm(channels, groups)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = norm_only(self.group_norm, x).flatten(2).transpose(1, 2).unsqueeze(1)  # (B, 1, H*W, C), a view if channels_last
        attended = F.scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + self.to_out[0](attended).squeeze(1).transpose(1, 2).unflatten(2, x.shape[-2:])


class MidBlock(nn.Module):
    def __init__(self, channels: int, *, groups: int, attention: bool = True) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups=groups) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(channels, groups=groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.resnets
        x = before(x)
        for attend in self.attentions:
            x = attend(x)
        return after(x)


def pad_by_reflection(network: nn.Module) -> None:
    """Let every padded convolution of a network reflect the image at its edges instead of adding zeros.

    The asymmetric padding of the stride-2 convolutions stays zero, as in the published autoencoders that are trained so
    (kohya-ss/sd-scripts#2189).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and any(module.padding):
            module.padding_mode = "reflect"


class Downsample(Recomputable):
    """Stride-2 convolution. "asymmetric" pads one row below and one column to the right (LDM, diffusers), "symmetric" pads one on
    every side (the paper's released code). With equal weights these are different functions (released-code.md#keys-of-diffusers).
    """

    def __init__(self, channels: int, *, pad: DownsamplePad) -> None:
        super().__init__()
        self.symmetric = pad == "symmetric"
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if self.symmetric else 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.symmetric else F.pad(x, (0, 1, 0, 1)))


class Upsample(Recomputable):
    """Nearest-neighbor upsampling by 2, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(enlarged(x))


def enlarged(x: Tensor) -> Tensor:
    """Nearest-neighbor upsampling by 2. It copies numbers, so that a GPU's autocast has no reason for its float32."""
    if x.device.type == "cpu" or not is_autocast_on(x.device):
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Blocks(nn.Module):
    """Resnet blocks of one level, each followed by self-attention if the level has attention."""

    def __init__(self, in_channels: int, out_channels: int, *, num_blocks: int, groups: int, attention: bool) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.resnets = nn.ModuleList(ResnetBlock(a, b, groups=groups) for a, b in pairwise(widths))
        self.attentions = nn.ModuleList(Attention(out_channels, groups=groups) for _ in self.resnets if attention)

    def forward(self, x: Tensor) -> Tensor:
        for resnet, attend in zip_longest(self.resnets, self.attentions):
            x = resnet(x)
            if attend is not None:
                x = attend(x)
        return x


class DownBlock(Blocks):
    """One level of the encoder: resnet blocks, then (except in the last level) a downsampler."""

    def __init__(
        self, in_channels: int, out_channels: int, *, num_blocks: int, groups: int, pad: DownsamplePad | None, attention: bool
    ) -> None:
        super().__init__(in_channels, out_channels, num_blocks=num_blocks, groups=groups, attention=attention)
        self.downsamplers = nn.ModuleList([] if pad is None else [Downsample(out_channels, pad=pad)])

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        for downsample in self.downsamplers:
            x = downsample(x)
        return x


class UpBlock(Blocks):
    """One level of the decoder: resnet blocks, then (except in the last level) an upsampler."""

    def __init__(
        self, in_channels: int, out_channels: int, *, num_blocks: int, groups: int, upsample: bool, attention: bool
    ) -> None:
        super().__init__(in_channels, out_channels, num_blocks=num_blocks, groups=groups, attention=attention)
        self.upsamplers = nn.ModuleList([Upsample(out_channels)] if upsample else [])

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        for upsample in self.upsamplers:
            x = upsample(x)
        return x
