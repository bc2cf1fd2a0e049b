"""How many independent directions the channels of latents use: moments over positions, dead channels, effective rank."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.spectrum.dct import full_precision

POSITIONS_PER_CHANNEL = 10
"""With fewer positions per channel the rank is biased low: 256 channels at 8x8 give 56 from one image and 199 from eight
(spectrum.md#health)."""
DEAD = 0.01


@dataclass(frozen=True)
class ChannelMoments:
    """Mean and covariance of the channels over all positions. `a + b` equals the moments of both sets of latents together.

    num_positions: images times cells. mean: (C,). scatter: (C, C), sum of products of deviations from the mean. Float64 on the
    CPU.
    """

    num_positions: int
    mean: Tensor
    scatter: Tensor

    def __add__(self, other: "ChannelMoments") -> "ChannelMoments":
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"latents of {len(self.mean)} and of {len(other.mean)} channels cannot be joined")
        total = self.num_positions + other.num_positions
        step = other.mean - self.mean
        return ChannelMoments(
            num_positions=total,
            mean=self.mean + step * (other.num_positions / total),
            scatter=self.scatter + other.scatter + torch.outer(step, step) * (self.num_positions * other.num_positions / total),
        )

    @property
    def covariance(self) -> Tensor:
        """(C, C), unbiased; channel means removed."""
        return self.scatter / max(self.num_positions - 1, 1)

    @property
    def std(self) -> Tensor:
        """(C,): standard deviation of each channel."""
        return self.covariance.diagonal().sqrt()


@dataclass(frozen=True)
class EffectiveRank:
    """Effective number of directions that the C channels use, from the fractions p of the eigenvalues in their sum.

    entropy: exp(-sum p ln p). participation: 1 / sum p^2, which is at most `entropy`. Both lie between 1 and C. These two use
    the covariance, where one channel of large variance hides the others. `*_correlation` use the correlations, where every
    channel that varies counts equally, however small its variance (`dead_channels` lists those). num_channels: C.
    num_positions: images times cells.
    """

    entropy: float
    participation: float
    entropy_correlation: float
    participation_correlation: float
    num_channels: int
    num_positions: int


def channel_moments(latents: Tensor) -> ChannelMoments:
    """The moments of a batch of latents (B, C, h, w). Add those of several batches with `+`; memory does not grow.

    Raises ValueError for a tensor of another shape.
    """
    if latents.ndim != 4 or latents.numel() == 0:
        raise ValueError(f"moments are taken of latents (B, C, h, w), but got a tensor of shape {tuple(latents.shape)}")
    with torch.no_grad():
        positions = full_precision(latents).transpose(0, 1).flatten(1).double()             # (C, B h w)
        mean = positions.mean(1)
        centred = positions - mean[:, None]
        return ChannelMoments(positions.shape[1], mean.cpu(), (centred @ centred.mT).cpu())


def dead_channels(moments: ChannelMoments) -> Tensor:
    """(C,) bool: channels whose std is at most 1 % of the largest std among the channels. The limit is this project's choice.

    moments: use those of posterior *means*: in a posterior sample, a collapsed channel contains noise and does not look dead.
    """
    std = moments.std
    return std <= DEAD * std.max()


def effective_rank(moments: ChannelMoments) -> EffectiveRank:
    """Entropy rank and participation ratio of the C x C covariance over positions, and of the correlations.

    Channels that do not vary at all are left out of the correlations. Raises ValueError below 10 C positions, where the rank is
    biased low, and if no channel varies. Source: spectrum.md#health.
    """
    num_channels = len(moments.mean)
    if moments.num_positions < POSITIONS_PER_CHANNEL * num_channels:
        raise ValueError(f"the effective rank of {num_channels} channels needs {POSITIONS_PER_CHANNEL * num_channels} positions "
                         f"(images x cells), but there are {moments.num_positions}: take more images")
    covariance = moments.covariance
    alive = covariance.diagonal() > 0
    if not bool(alive.any()):
        raise ValueError("no channel varies: there is no rank to measure")
    scale = covariance.diagonal()[alive].rsqrt()
    fractions = _eigenvalue_fractions(covariance)
    correlated = _eigenvalue_fractions(covariance[alive][:, alive] * torch.outer(scale, scale))
    return EffectiveRank(
        entropy=_entropy_rank(fractions),
        participation=_participation(fractions),
        entropy_correlation=_entropy_rank(correlated),
        participation_correlation=_participation(correlated),
        num_channels=num_channels,
        num_positions=moments.num_positions,
    )


def _eigenvalue_fractions(symmetric: Tensor) -> Tensor:
    values = torch.linalg.eigvalsh(symmetric).clamp(min=0)
    return values / values.sum()


def _entropy_rank(fractions: Tensor) -> float:
    return math.exp(-torch.xlogy(fractions, fractions).sum().item())


def _participation(fractions: Tensor) -> float:
    return 1 / fractions.square().sum().item()
