"""Check, before a diffusion model is trained, that latents are normalized and belong to their images and autoencoder."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.data.batches import LatentBatch, to_signed
from smtool.devices import in_float64
from smtool.errors import DataError
from smtool.metrics.reconstruction import psnr
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator
from smtool.spectrum.jackknife import student_t_quantile
from smtool.tokenizers.encode import encoded

TOLERANCE = 0.1  # allowed error of the mean and of log(std), in addition to their confidence interval over images
FALSE_ALARM = 1e-4  # probability of a false alarm, by Student's t intervals, over all means and stds together
ROUND_TRIP_DB = 60.0  # least PSNR of decode(denormalize(normalize(z))) against decode(z); float32 rounding gives over 90 dB
LOSS_DB = 1.0  # largest loss of PSNR of a reconstruction from cached latents against a direct one
DISTANCE = 0.1  # largest RMS distance of cached from direct latents, in their std; rounding to bf16 gives below 0.01
CEILING_DB = 50.0  # PSNR of an image counts up to this, because rounding to bf16 limits it where a tokenizer loses nothing
DECODED_IMAGES = 8


@dataclass(frozen=True)
class LatentCheck:
    """Results of the check. mean, std: of the normalized latents, by groups of the statistics: per channel or over all.

    psnr, direct_psnr: PSNR in dB of reconstructions of the first images from the batch's latents, and by the autoencoder
    directly, each image's at most CEILING_DB; None if the batches have no images.
    """

    num_latents: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    round_trip_db: float
    psnr: float | None
    direct_psnr: float | None


def check_latents(batches: Iterable[LatentBatch], stats: LatentStats, autoencoder: Tokenizer, *, seed: int = 0) -> LatentCheck:
    """Check batches of latents against their statistics and autoencoder. Raises DataError that names the failed check.

    Normalized latents must have std 1 and mean 0, or mean `residual` of the statistics (not checked if unknown), per channel or
    over all as the statistics are, unless they are the raw latents of a tokenizer that divides by a bound; normalizing and
    denormalizing must not change their decoding; and, if the batches have images, the latents must be those of the images and
    reconstruct them.
    """
    found = [batch.in_float32() for batch in batches]
    latents = torch.cat([batch.posterior.sample(_noise(batch, seed, k)).cpu() for k, batch in enumerate(found)])
    mean, std = _check_normalized(stats.normalize(latents), stats, any_std=autoencoder.scaled_by_bound and _is_identity(stats))
    if stats.kind == "element":      # its groups are channels: the mean and std of every cell are checked beside them
        cells = stats.normalize(latents).permute(0, 2, 3, 1).flatten(1, 2).unsqueeze(3)      # (N, h w, C, 1)
        _check_normalized(cells, _of_cells(stats), any_std=False)
    few = found[0].slice(0, DECODED_IMAGES).to(autoencoder.device)
    with torch.no_grad():
        plain, back = (autoencoder.decode(z) for z in (few.mean, stats.denormalize(stats.normalize(few.mean))))
    round_trip = _mean_psnr(plain, back)
    if not round_trip >= ROUND_TRIP_DB:
        raise DataError(
            "Normalizing and denormalizing latents changes their decodings"
            f" (PSNR {round_trip:.1f} dB; at least {ROUND_TRIP_DB:g} dB is required).",
            hint="The statistics do not fit these latents: prepare the latents again to measure new statistics.",
        )
    scores = None if few.images is None else _check_images(few, to_signed(few.images), back, stats, autoencoder)
    return LatentCheck(len(latents), mean, std, round_trip, *(scores or (None, None)))


def _of_cells(stats: LatentStats) -> LatentStats:
    """Statistics of elements, seen as those of one channel for each cell, so that errors name it."""
    _, height, width = stats.mean.shape
    return LatentStats("channel", torch.zeros(height * width), torch.ones(height * width), stats.count, stats.data,
                       torch.zeros(height * width))


def _noise(batch: LatentBatch, seed: int, number: int) -> Tensor:
    return torch.randn(batch.mean.shape, generator=generator("latent check", seed, number)).to(batch.mean)


def _is_identity(stats: LatentStats) -> bool:
    return stats.recolouring is None and bool((stats.mean == 0).all() and (stats.std == 1).all())


def _check_normalized(latents: Tensor, stats: LatentStats, *, any_std: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of normalized latents (N, C, h, w), else DataError. Standard errors are over images: pixels are correlated."""
    if len(latents) < 2:
        raise ValueError("the latents of at least 2 images are needed to check their statistics")
    cells = stats.groups(in_float64(latents))  # (N, G, P)
    num, groups, _ = cells.shape
    mean = cells.mean((0, 2))
    energy = (cells - mean[:, None]).square().mean(2)  # (N, G)
    std = energy.mean(0).sqrt()
    reach = student_t_quantile(1.0 - FALSE_ALARM / (4 * groups), num - 1) / num**0.5
    slack = TOLERANCE + reach * cells.mean(2).std(0)
    factor = torch.exp(TOLERANCE + reach * energy.std(0) / (2.0 * energy.mean(0)))  # NaN, which fails, if all are equal
    expected = mean if stats.residual is None else stats.residual.double()
    unit = std if any_std else torch.ones_like(std)
    for name, ideal, value, low, high in (
        ("mean", expected, mean, expected - slack, expected + slack),
        ("std", unit, std, unit / factor, unit * factor),
    ):
        wrong = ~((value >= low) & (value <= high))
        if wrong.any():
            group = int(wrong.int().argmax())
            where = {"scalar": "", "patch": f" in channel {group} of 2x2 patches"}.get(stats.kind, f" in channel {group}")
            raise DataError(
                f"Normalized latents should have {name} {ideal[group]:.3g}, but those of {num} images have"
                f" {value[group]:.3g}{where} (allowed: {low[group]:.2g} to {high[group]:.2g}).",
                hint=f"Their statistics ({stats.name}, {_origin(stats)}) belong to other latents,"
                " or the latents were already scaled. Prepare the latents again and normalize by the statistics measured then.",
            )
    return tuple(mean.tolist()), tuple(std.tolist())


def _origin(stats: LatentStats) -> str:
    """Source of the statistics for messages: count and data digest if measured, the source's name if published (count 0)."""
    return f"of {stats.count} latents, data {stats.data[:8]}" if stats.count else stats.data


def _check_images(
    batch: LatentBatch, images: Tensor, decoded: Tensor, stats: LatentStats, autoencoder: Tokenizer
) -> tuple[float, float]:
    direct = encoded(autoencoder, images, batch.ids, device=images.device).mode()
    distance = (stats.standardize(batch.mean) - stats.standardize(direct)).square().mean().sqrt().item()
    with torch.no_grad():
        ours, theirs = (_mean_psnr(x, images, CEILING_DB) for x in (decoded, autoencoder.decode(direct)))
    if not distance <= DISTANCE or not ours >= theirs - LOSS_DB:
        raise DataError(
            f"The latents are not those of their images: {distance:.2g} standard deviations away (allowed: {DISTANCE:g}), "
            f"and their decodings have PSNR {ours:.1f} dB, but direct reconstructions have {theirs:.1f} dB.",
            hint="They were made by another autoencoder or from other images. Prepare the latents again.",
        )
    return ours, theirs


def _mean_psnr(x: Tensor, y: Tensor, ceiling: float = math.inf) -> float:
    return psnr(x.clamp(-1.0, 1.0), y.clamp(-1.0, 1.0)).clamp(max=ceiling).mean().item()
