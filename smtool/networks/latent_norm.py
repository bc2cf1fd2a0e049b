"""BatchNorm of raw latents while their autoencoder trains (REPA-E; released-code.md#repa-e)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from smtool.networks.batch_norm import GlobalBatchNorm2d
from smtool.networks.posterior import LatentStats


class LatentNorm(GlobalBatchNorm2d):
    """Normalizes raw latents (B, C, h, w) per channel: in training mode by the statistics of the global batch, which its running
    statistics follow. It has no parameters, because a learned scale would change the diffusion loss."""

    averaged_buffers: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")

    def __init__(self, channels: int, *, momentum: float, eps: float) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=False)

    @torch.no_grad()
    def start_from(self, stats: LatentStats) -> None:
        """Set the running statistics to those of a kind with one mean and std for each channel."""
        assert self.running_mean is not None and self.running_var is not None
        self.running_mean.copy_(stats.mean)
        self.running_var.copy_(stats.std.square())

    def running(self, latents: Tensor) -> Tensor:
        """Normalize by the running statistics and leave them unchanged, as in evaluation mode."""
        return F.batch_norm(latents, self.running_mean, self.running_var, training=False, eps=self.eps)

    def stats(self, data: str) -> LatentStats:
        """The running statistics, with std = sqrt(variance + eps), so that `denormalize` inverts `running`. data: origin."""
        assert self.running_mean is not None and self.running_var is not None
        mean, std = self.running_mean, (self.running_var + self.eps).sqrt()
        return LatentStats("channel", mean.detach().cpu().float().clone(), std.detach().cpu().float(), 0, data)
