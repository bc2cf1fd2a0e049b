"""Encoding Spectrum Matching (ESM): the KL divergence between a flattened version of the image's spectrum and the latent's."""

import torch
from torch import Tensor

from smtool.spectrum.estimators import EPS, REFERENCE, Estimator
from smtool.spectrum.psd import cells_per_ring, radial_power


def esm_loss(images: Tensor, latents: Tensor, delta: float = 1.0, estimator: Estimator = REFERENCE.loss) -> Tensor:
    """Mean over the batch of KL(flattened image spectrum || latent spectrum), a scalar in nats. Gradients reach only the latents.

    images: (B, C, H, W). latents: (B, C, h, w). delta: the target is the image's power times (bin number)^delta; 0 keeps the
    image's spectrum, larger values flatten it. estimator: a REFERENCE estimator; with gain = "match" the loss does not depend on
    the gain of the latents (`matched_gain`).

    Raises ValueError for different numbers of images and latents, and for PHYSICAL.
    Source: released code of Spectrum Matching (arXiv 2603.14645; released-code.md#esm).
    """
    if len(images) != len(latents):
        raise ValueError(f"{len(images)} images cannot be compared with {len(latents)} latents")
    size = (latents.shape[-2], latents.shape[-1])
    with torch.no_grad():
        image_power = radial_power(images, estimator, size)
    latent_power = radial_power(latents, estimator)
    gain: float | Tensor = 1.0
    if estimator.gain == "match":
        count = cells_per_ring(*size, estimator, dtype=image_power.dtype, device=image_power.device)
        gain = matched_gain(image_power, latent_power, count, delta=delta)
    return reference_divergence(image_power, latent_power, estimator, delta=delta, gain=gain).mean()


def reference_divergence(
    image_power: Tensor, latent_power: Tensor, estimator: Estimator, *, delta: float, gain: float | Tensor = 1.0
) -> Tensor:
    """KL(target || latent) of each image in nats, (B,), from ring powers (B, bins).

    The target is the image's power times (bin number)^delta. gain: factor of the latents' power (see `matched_gain`).
    Both are normalized by `spectral_distribution`. Source: released-code.md#esm.
    """
    target = spectral_distribution(image_power, estimator, delta=delta)
    found = spectral_distribution(latent_power, estimator, gain=gain)
    return (target * ((target + EPS).log() - (found + EPS).log())).sum(-1)


def spectral_distribution(power: Tensor, estimator: Estimator, *, delta: float = 0.0, gain: float | Tensor = 1.0) -> Tensor:
    """Normalize ring powers (B, bins) to sum 1: multiply by (bin number)^delta and by gain, take log1p, divide by the sum.

    With estimator.log = "none", log1p is skipped. Raises ValueError for PHYSICAL. Source: released-code.md#esm.
    """
    if estimator.name != "reference":
        raise ValueError("fractions of total power are compared under REFERENCE only; for PHYSICAL see physical_divergence_db")
    weighted = power
    if delta != 0:
        weighted = weighted * torch.arange(1, power.shape[-1] + 1, device=power.device, dtype=power.dtype) ** delta
    if isinstance(gain, Tensor) or gain != 1:
        weighted = weighted * gain
    if estimator.log == "log1p":
        weighted = torch.log(weighted + (1 + EPS))
    return weighted / (weighted.sum(-1, keepdim=True) + EPS)


def matched_gain(image_power: Tensor, latent_power: Tensor, count: Tensor, *, delta: float) -> Tensor:
    """The factor that gives the latents the target's total power: sum(cells x target) / sum(cells x latent), over the whole set.

    image_power, latent_power: (B, bins). count: (bins,), cells per bin. Returns a scalar. Without this factor, log1p makes the
    comparison depend on the gain of the latents (released-code.md#gain-in-esm; spectrum.md#delta).
    """
    count = count.to(image_power)
    bins = torch.arange(1, len(count) + 1, device=image_power.device, dtype=image_power.dtype)
    return (count * bins**delta * image_power).sum() / (count * latent_power).sum()
