"""Local correlation regularization of SSVAE (LCR, arXiv 2512.05394; released-code.md#ssvae): neighbouring latent cells agree."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from smtool.regularizers.base import Encoding, Regularizer, RegularizerConfig, Shapes
from smtool.regularizers.features import RELEASED_RATIO
from smtool.spectrum.dct import constant, full_precision
from smtool.training.distributed import averaged


class LocalCorrelation(RegularizerConfig):
    """Raise the mean correlation of the four cells of each 2x2 window to a threshold.

    The posterior mean is normalized per channel over batch and positions, without gradient through these statistics. A cell is a
    vector over channels, centred and of length 1; the correlation of a window is the mean of the six inner products of its
    cells. The penalty relu(threshold - mean correlation) is scaled by the ratio of gradient norms at the encoder's last layer.
    Statistics and mean are those of all ranks, but of one micro-batch.
    """

    only_encoder: ClassVar[bool] = True
    weight: float = Field(
        0.002, gt=0, description="factor of the penalty, times the ratio of gradient norms; released: 0.1 * 0.02"
    )
    threshold: float = Field(0.75, gt=-1, le=1, description="mean correlation from which on nothing is penalized")

    def problems(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        _, channels, height, width = shapes.latents
        if height % 2 or width % 2:
            yield "threshold", f"needs latents that windows of 2x2 fill, but they are {height}x{width}; use another image size"
        if channels < 2:
            yield "threshold", "needs at least 2 latent channels: a vector of one number has no direction after it is centred"

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "LocallyCorrelated":
        return LocallyCorrelated(self.weight, self.threshold)


class LocallyCorrelated(Regularizer):
    adaptive_weight = RELEASED_RATIO

    def __init__(self, weight: float, threshold: float) -> None:
        super().__init__()
        self.weight = weight
        self.threshold = threshold

    def penalty(self, encoding: Encoding, draw: Any) -> Tensor:
        rho = window_correlation(full_precision(encoding.posterior.mode()))
        below = averaged(rho.detach()) < self.threshold
        return torch.where(below, self.threshold - rho, 0 * rho)      # on average over ranks: relu(threshold - mean rho)


def window_correlation(means: Tensor) -> Tensor:
    """Mean over windows, images and pairs of cells of the correlation: (B, C, h, w) -> 0-dim; h and w even."""
    normalized = _normalized(means)
    windows = normalized.unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2))      # (B, C, h/2, 2, w/2, 2)
    cells = windows.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)                 # (B, h/2, w/2, 4, C)
    cells = F.normalize(cells - cells.mean(-1, keepdim=True), dim=-1)
    products = cells @ cells.mT
    first, second = _pairs(4, dtype=torch.int64, device=products.device)
    return products[..., first, second].mean()


@constant
def _pairs(count: int) -> Tensor:
    """(2, pairs): numbers of both members of each pair of `count` things."""
    return torch.triu_indices(count, count, 1)


def _normalized(means: Tensor) -> Tensor:
    """(x - mean) / (std + 1e-6) per channel, over the batch of all ranks and the positions, without gradient of mean and std."""
    x = means.detach()
    mean = averaged(x.mean((0, 2, 3), keepdim=True))
    std = averaged((x - mean).square().mean((0, 2, 3), keepdim=True)).sqrt()
    return (means - mean) / (std + 1e-6)
