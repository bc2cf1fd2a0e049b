"""Blocks of DC-AE (arXiv 2410.10733), partly of EfficientViT (arXiv 2205.14756), with the names of diffusers' AutoencoderDC."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smtool.networks.batch_norm import GlobalBatchNorm2d
from smtool.networks.recompute import Recomputable

NORM_EPS, ATTENTION_EPS = 1e-5, 1e-15
EXPANSION = 4
"""Width of the gated convolutions between their 1x1 convolutions, as a multiple of the block's."""


class ChannelRMSNorm(nn.Module):
    """x / sqrt(mean of x^2 over the channels of each pixel + 1e-5), then a scale and a bias per channel: (B, C, H, W) -> same.

    Computed in float32 at least.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        values = values * torch.rsqrt(values.square().mean(1, keepdim=True) + NORM_EPS)
        return torch.addcmul(self.bias.view(1, -1, 1, 1), values, self.weight.view(1, -1, 1, 1)).to(x.dtype)


class ResBlock(Recomputable):
    """x + norm(conv3(act(conv3(x)))); the second convolution has no bias.

    batch_norm: BatchNorm over the global batch and ReLU, instead of RMSNorm and SiLU.
    """

    def __init__(self, width: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.batch_norm = batch_norm
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = GlobalBatchNorm2d(width) if batch_norm else ChannelRMSNorm(width)

    def __call__(self, *inputs: Any) -> Any:
        return nn.Module.__call__(self, *inputs) if self.batch_norm else super().__call__(*inputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.batch_norm and self.recompute and torch.is_grad_enabled():      # without the norm, which counts every pass
            return x + self.norm(checkpoint(self._convolved, x, use_reentrant=False))
        return x + self.norm(self._convolved(x))

    def _convolved(self, x: Tensor) -> Tensor:
        h = self.conv1(x)
        return self.conv2(F.relu(h) if self.batch_norm else F.silu(h))


class EfficientViTBlock(Recomputable):
    """Linear attention, then gated convolutions, each added to its input after an RMSNorm."""

    def __init__(self, width: int, *, head_channels: int, scales: Sequence[int]) -> None:
        super().__init__()
        self.attn = LinearAttention(width, head_channels=head_channels, scales=scales)
        self.conv_out = GatedConvolutions(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.attn(x))


class LinearAttention(nn.Module):
    """Attention with the kernel relu(q) . relu(k), linear in the number of positions, added to the input after an RMSNorm.

    A head takes 3 * head_channels consecutive channels of q | k | v concatenated, and splits them into its own query, key and
    value, as in EfficientViT. scales: kernel sizes; each adds as many heads on q | k | v aggregated by a depthwise convolution
    and a 1x1 convolution in groups of head_channels.
    """

    def __init__(self, width: int, *, head_channels: int, scales: Sequence[int]) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_qkv_multiscale = nn.ModuleList(Aggregation(3 * width, head_channels, kernel) for kernel in scales)
        self.to_out = nn.Linear((1 + len(scales)) * width, width, bias=False)
        self.norm_out = ChannelRMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])
        qkv = F.conv2d(x, weight[..., None, None])
        qkv = torch.cat([qkv, *(aggregate(qkv) for aggregate in self.to_qkv_multiscale)], dim=1)
        heads = qkv.flatten(2).unflatten(1, (-1, 3 * self.head_channels))      # (B, heads, 3 * head_channels, H * W)
        attended = linear_attention(*heads.chunk(3, dim=2)).flatten(1, 2).unflatten(2, x.shape[-2:])
        return x + self.norm_out(F.conv2d(attended.to(qkv.dtype), self.to_out.weight[..., None, None]))


class Aggregation(nn.Module):
    """A depthwise convolution, then a 1x1 convolution in groups; no biases."""

    def __init__(self, channels: int, group: int, kernel: int) -> None:
        super().__init__()
        self.proj_in = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.proj_out = nn.Conv2d(channels, channels, 1, groups=channels // group, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_out(self.proj_in(x))


class GatedConvolutions(nn.Module):
    """x + norm(conv1(a * silu(g))) where a | g = depthwise conv3(silu(conv1(x))) have 4 times the width each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = EXPANSION * width
        self.conv_inverted = nn.Conv2d(width, 2 * inner, 1)
        self.conv_depth = nn.Conv2d(2 * inner, 2 * inner, 3, padding=1, groups=2 * inner)
        self.conv_point = nn.Conv2d(inner, width, 1, bias=False)
        self.norm = ChannelRMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.conv_depth(F.silu(self.conv_inverted(x))).chunk(2, dim=1)
        return x + self.norm(self.conv_point(values * F.silu(gate)))


class Down(nn.Module):
    """Half the size: conv3 and pixel-unshuffle, or a conv3 of stride 2; plus, as shortcut, the unshuffled input averaged over
    groups of adjacent channels: (B, before, H, W) -> (B, after, H / 2, W / 2)."""

    def __init__(self, before: int, after: int, *, shuffle: bool, shortcut: bool = True) -> None:
        super().__init__()
        self.after, self.shuffle, self.shortcut = after, shuffle, shortcut
        self.conv = nn.Conv2d(before, after // 4 if shuffle else after, 3, padding=1, stride=1 if shuffle else 2)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv(x)
        h = F.pixel_unshuffle(h, 2) if self.shuffle else h
        return h + grouped_mean(F.pixel_unshuffle(x, 2), self.after) if self.shortcut else h


class Up(nn.Module):
    """Twice the size: conv3 and pixel-shuffle, or nearest neighbours and conv3; plus, as shortcut, the pixel-shuffled input with
    every channel repeated: (B, before, H, W) -> (B, after, 2 H, 2 W)."""

    def __init__(self, before: int, after: int, *, shuffle: bool, shortcut: bool = True) -> None:
        super().__init__()
        self.after, self.shuffle, self.shortcut = after, shuffle, shortcut
        self.conv = nn.Conv2d(before, 4 * after if shuffle else after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.pixel_shuffle(self.conv(x), 2) if self.shuffle else self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return h + F.pixel_shuffle(repeated(x, 4 * self.after), 2) if self.shortcut else h


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """sum_j value_j (relu(key_j) . relu(query_i)) / sum_j (relu(key_j) . relu(query_i)), eps 1e-15: (B, heads, C, N), float32.

    Equal to the quadratic form that other implementations use for few positions, up to eps and rounding.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key, value = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (query, key, value))
        value = F.pad(value, (0, 0, 0, 1), value=1.0)      # its last row is the denominator
        sums = (value @ F.relu(key).transpose(-1, -2)) @ F.relu(query)
        return sums[:, :, :-1] / (sums[:, :, -1:] + ATTENTION_EPS)


def grouped_mean(x: Tensor, channels: int) -> Tensor:
    """Mean over groups of adjacent channels: (B, C, H, W) -> (B, channels, H, W)."""
    return x.unflatten(1, (channels, -1)).mean(2)


def repeated(x: Tensor, channels: int) -> Tensor:
    """Every channel repeated in place, the inverse of `grouped_mean`: (B, C, H, W) -> (B, channels, H, W)."""
    return x.repeat_interleave(channels // x.shape[1], dim=1)
