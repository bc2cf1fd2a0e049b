"""A U-Net on pixels that sees the time and an image of conditions: the decoder of the epsilon-VAE.

It has the layers of the SD-VAE in the order of ADM's U-Net (arXiv 2105.05233, section 3): a skip connection from every layer on
the way down to a layer of the same size on the way up, and in every block a scale and shift that depend on the time.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smtool.networks.layers import Attention, Downsample, DownsamplePad, Upsample, group_norm
from smtool.networks.norm_silu import norm_silu
from smtool.networks.recompute import Recomputable
from smtool.networks.transformer import time_features

TIME_SCALE = 1000.0
"""Times in [0, 1] are multiplied by this before their sinusoids, so that they span ADM's steps."""


class TimedBlock(Recomputable):
    """GN -> SiLU -> conv3 -> GN -> times (1 + scale), plus shift -> SiLU -> conv3, added to the input.

    scale and shift are a linear function of the embedding of the time; a 1x1 shortcut if the width changes.
    """

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(embedding, 2 * out_channels)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        scale, shift = self.time(F.silu(embedded))[:, :, None, None].chunk(2, 1)
        h = self.conv1(norm_silu(self.norm1, x))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class _Layer(nn.Module):
    """A timed block, followed by self-attention if its level has attention."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, embedding: int, attention: bool) -> None:
        super().__init__()
        self.resnet = TimedBlock(in_channels, out_channels, groups=groups, embedding=embedding)
        self.attention = Attention(out_channels, groups=groups) if attention else None

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        x = self.resnet(x, embedded)
        return x if self.attention is None else self.attention(x)


class _Level(nn.Module):
    """Layers of one size on the way down or up, and the convolution to the next size (None in the last level)."""

    def __init__(self, layers: Sequence[nn.Module], resample: nn.Module | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.resample = resample


class Denoiser(nn.Module):
    """x_t (B, image_channels, H, W), t (B,) in [0, 1] and conditions (B, C, H, W) -> velocity (B, image_channels, H, W).

    widths: of each level, level 0 at full size; sides must be multiples of 2^(levels - 1). blocks: per level on the way down; one
    more on the way up. attention: levels with self-attention after every block; the lowest layers always have it if `middle`.
    """

    def __init__(
        self, image_channels: int, condition_channels: int, widths: tuple[int, ...], *, blocks: int, groups: int,
        pad: DownsamplePad, attention: tuple[int, ...], middle: bool,
    ) -> None:
        super().__init__()
        self.features = 2 * (-(-widths[0] // 2))
        embedding = 4 * widths[0]
        self.time_in = nn.Linear(self.features, embedding)
        self.time_out = nn.Linear(embedding, embedding)
        self.conv_in = nn.Conv2d(image_channels + condition_channels, widths[0], 3, padding=1)

        def layer(before: int, after: int, attends: bool) -> _Layer:
            return _Layer(before, after, groups=groups, embedding=embedding, attention=attends)

        last, skips, width = len(widths) - 1, [widths[0]], widths[0]
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for level, wanted in enumerate(widths):
            inputs = [width, *[wanted] * (blocks - 1)]
            resample = Downsample(wanted, pad=pad) if level < last else None
            self.down_blocks.append(_Level([layer(one, wanted, level in attention) for one in inputs], resample))
            skips += [wanted] * (blocks + (level < last))
            width = wanted
        self.mid_blocks = nn.ModuleList([layer(width, width, middle), layer(width, width, False)])
        for level, wanted in reversed(list(enumerate(widths))):
            layers = []
            for _ in range(blocks + 1):
                layers.append(layer(width + skips.pop(), wanted, level in attention))
                width = wanted
            self.up_blocks.append(_Level(layers, Upsample(wanted) if level > 0 else None))
        self.conv_norm_out = group_norm(width, groups)
        self.conv_out = nn.Conv2d(width, image_channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        features = time_features(TIME_SCALE * t, self.features).to(self.time_in.weight.dtype)
        embedded = self.time_out(F.silu(self.time_in(features)))
        x = self.conv_in(torch.cat([x_t, condition.to(x_t.dtype)], 1))
        skips = [x]
        for level in cast(Iterable[_Level], self.down_blocks):
            for layer in level.layers:
                x = layer(x, embedded)
                skips.append(x)
            if level.resample is not None:
                x = level.resample(x)
                skips.append(x)
        for layer in self.mid_blocks:
            x = layer(x, embedded)
        for level in cast(Iterable[_Level], self.up_blocks):
            for layer in level.layers:
                x = layer(torch.cat([x, skips.pop()], 1), embedded)
            if level.resample is not None:
                x = level.resample(x)
        return self.conv_out(norm_silu(self.conv_norm_out, x))
