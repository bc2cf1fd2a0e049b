"""FLUX.2's batch norm of 2x2 patches of latents, which its pipeline uses in place of scale and shift."""

import torch
from torch import Tensor

from smtool.checkpoints.tensor_file import TensorFile
from smtool.errors import CheckpointError
from smtool.networks.posterior import LatentStats

PATCH_MEAN, PATCH_VARIANCE = "bn.running_mean", "bn.running_var"
EPS = 1e-4
"""Published value of config.json's `batch_norm_eps`, which is added to the variance."""


def patch_stats(file: TensorFile, channels: int, *, prefix: str = "", eps: float = EPS) -> LatentStats | None:
    """The batch norm in a file as LatentStats of kind "patch", in float32.

    channels: of the latents; prefix: of the autoencoder's names. None without a batch norm, and for one with mean 0 and
    variance 1, which no image has been through. Raises CheckpointError for another number of values than 4 per channel.
    """
    names = {f"{prefix}{PATCH_MEAN}": "mean", f"{prefix}{PATCH_VARIANCE}": "variance"}
    if not names.keys() <= file.shapes.keys():
        return None
    if wrong := [name for name in names if file.shapes[name] != (4 * channels,)]:
        raise CheckpointError(
            f"{file.path}: {wrong[0]} has the shape {file.shapes[wrong[0]]}, but 2x2 patches of {channels} latent channels have "
            f"{4 * channels} values."
        )
    found = file.read(names)
    mean, variance = found["mean"], found["variance"].double()
    if not mean.any() and bool(((variance - 1).abs() < 2 * eps).all()):
        return None
    return LatentStats("patch", mean, (variance + eps).sqrt().float(), count=0, data="published", residual=torch.zeros_like(mean))


def patch_norm(stats: LatentStats | None, channels: int, eps: float = EPS) -> dict[str, Tensor]:
    """The batch norm of 2x2 patches that normalizes as `stats` do, in float32; the identity if they are unknown."""
    mean, std = (torch.zeros(1), torch.ones(1)) if stats is None else (stats.mean, stats.std)
    if stats is None or stats.kind != "patch":
        mean, std = (values.expand(channels).repeat_interleave(4) for values in (mean, std))
    return {
        PATCH_MEAN: mean.contiguous(),
        PATCH_VARIANCE: (std**2 - eps).clamp(min=0.0),
        "bn.num_batches_tracked": torch.tensor(0),
    }
