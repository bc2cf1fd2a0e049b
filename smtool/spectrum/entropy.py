"""Entropy of the values of each channel, and weights of channels from it, as DCTdiff weighs DCT coefficients.

Source: Ning et al., "DCTdiff: Intriguing Properties of Image Generative Modeling in the DCT Space" (arXiv 2412.15032), and its
released code.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from smtool.spectrum.dct import full_precision

ChannelGroups = tuple[tuple[int, int], ...]
"""(blocks, coefficients) of each group of channels, in the order of channels: blocks * coefficients channels, block by block.
Equal coefficients of the blocks of a group are one population: they share entropy and weight."""

PERCENTILE = 98.25
"""Values above this percentile, and below 100 minus it, are left out."""
BINS = 100


def percentile_bound(values: Tensor) -> float:
    """The larger absolute value of the percentiles 1.75 and 98.25 of all values. DCTdiff's eta is that of the DC of luma blocks.

    Raises ValueError if there are no values.
    """
    low, high = _percentiles(values)
    return max(abs(low), abs(high))


def channel_entropy(latents: Tensor, groups: ChannelGroups | None = None) -> Tensor:
    """(C,) float64: entropy in bits of the values of each channel of latents (N, C, h, w), which are in units of their bound eta.

    Values strictly between the channel's percentiles 1.75 and 98.25 are counted in 100 equal bins of [-1, 1]; those outside
    [-1, 1] are not counted. H = -sum p log2(p + 1e-9). Two bins meet at 0, so a channel that hardly varies has about 1 bit.
    A channel without a counted value has 0 bits. groups: None for separate channels.
    Raises ValueError if latents have another shape or groups another number of channels.
    """
    return torch.cat([entropies.repeat(blocks) for entropies, blocks in _entropies(latents, groups)])


def entropy_weights(latents: Tensor, groups: ChannelGroups | None = None) -> Tensor:
    """(C,) float64: `channel_entropy` over its mean within each group, so that the weights of each group have mean 1.

    groups: None for one group of separate channels. DCTdiff multiplies the squared error of each coefficient by its weight.
    Raises ValueError as `channel_entropy`, and if a group has no entropy.
    """
    weights = []
    for entropies, blocks in _entropies(latents, groups):
        if not float(entropies.mean()) > 0:
            raise ValueError(f"the {len(entropies) * blocks} channels of a group have no entropy: none of their values lie in "
                             "[-1, 1] and vary; divide latents by their bound first")
        weights.append((entropies / entropies.mean()).repeat(blocks))
    return torch.cat(weights)


@torch.no_grad()
def _entropies(latents: Tensor, groups: ChannelGroups | None) -> Iterator[tuple[Tensor, int]]:
    """Yield the entropies (coefficients,) and the number of blocks of each group."""
    if latents.ndim != 4 or latents.numel() == 0:
        raise ValueError(f"entropies are taken of latents (N, C, h, w), but got a tensor of shape {tuple(latents.shape)}")
    channels = latents.shape[1]
    groups = ((1, channels),) if groups is None else groups
    if sum(blocks * coefficients for blocks, coefficients in groups) != channels:
        raise ValueError(f"groups {groups} have another number of channels than latents, {channels}")
    first = 0
    for blocks, coefficients in groups:
        last = first + blocks * coefficients
        found = [_entropy(latents[:, first + k : last : coefficients]) for k in range(coefficients)]
        yield torch.tensor(found, dtype=torch.float64), blocks
        first = last


def _entropy(values: Tensor) -> float:
    values = full_precision(values).flatten()
    low, high = _percentiles(values)
    kept = values[(values > low) & (values < high) & (values.abs() <= 1)]
    if len(kept) == 0:
        return 0.0
    counts = torch.histc(kept.cpu(), bins=BINS, min=-1, max=1).double()
    share = counts / counts.sum()
    return -float((share * torch.log2(share + 1e-9)).sum())


def _percentiles(values: Tensor) -> tuple[float, float]:
    """Percentiles 1.75 and 98.25, linear between neighbours as numpy's. torch.quantile refuses more than 16 million values."""
    values = full_precision(values.detach()).flatten().sort().values
    if len(values) == 0:
        raise ValueError("there are no values to take percentiles of")
    low, high = (_between(values, percent / 100 * (len(values) - 1)) for percent in (100 - PERCENTILE, PERCENTILE))
    return low, high


def _between(ordered: Tensor, position: float) -> float:
    below = int(position)
    lower, upper = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    return lower + (upper - lower) * (position - below)
