"""Encoding Spectrum Matching: the latent's spectrum compared with a flattened version of the image's."""

import torch
from torch import Tensor

from smtool.spectrum.estimators import EPS, REFERENCE, Estimator
from smtool.spectrum.psd import radial_power, ring_frequency


def esm_loss(images: Tensor, latents: Tensor, delta: float = 1.0, estimator: Estimator = REFERENCE.loss) -> Tensor:
    """Mean over the batch of KL(flattened image spectrum || latent spectrum), a scalar; gradient flows to the latents only.

    images: (B, 3, H, W), latents: (B, C, h, w). delta: 0 copies the image's spectrum, larger flattens the target.
    Source: released code, facts 3.1; `estimator.gain = "match"` makes it blind to how loud the latents are (`matched_gain`).
    """
    if len(images) != len(latents):
        raise ValueError(f"{len(images)} images cannot be compared with {len(latents)} latents")
    size = (latents.shape[-2], latents.shape[-1])
    with torch.no_grad():
        image_power = radial_power(images, estimator, size)
    latent_power = radial_power(latents, estimator)
    gain: float | Tensor = 1.0
    if estimator.gain == "match":
        gain = matched_gain(image_power, latent_power, ring_frequency(*size, estimator)[1], delta=delta)
    return reference_divergence(image_power, latent_power, estimator, delta=delta, gain=gain).mean()


def reference_divergence(
    image_power: Tensor, latent_power: Tensor, estimator: Estimator, *, delta: float, gain: float | Tensor = 1.0
) -> Tensor:
    """KL(target || latent) per image from ring powers (B, bins) -> (B,); `gain` multiplies the latents' (see `matched_gain`)."""
    target = spectral_distribution(image_power, estimator, delta=delta)
    found = spectral_distribution(latent_power, estimator, gain=gain)
    return (target * ((target + EPS).log() - (found + EPS).log())).sum(-1)


def spectral_distribution(power: Tensor, estimator: Estimator, *, delta: float = 0.0, gain: float | Tensor = 1.0) -> Tensor:
    """Ring powers (B, bins) as fractions of 1: times (bin number)^delta, times gain, log1p, normalized (facts 3.1, steps 5-7)."""
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
    """The scalar that gives the latents the target's power: sum(cells x target) / sum(cells x latent), both over the whole set.

    Without it log1p makes the comparison depend on how loud the latents are (facts 3.3; spectrum-definitions, section 3).
    """
    count = count.to(image_power)
    bins = torch.arange(1, len(count) + 1, device=image_power.device, dtype=image_power.dtype)
    return (count * bins**delta * image_power).sum() / (count * latent_power).sum()
