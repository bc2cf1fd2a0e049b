"""The low-pass curve: whether an autoencoder decodes a low-passed latent into the equally low-passed image, as DSM asks.

Relative convention: the same anti-diagonals leave 8x8 blocks of latent cells and of pixels (definition sheet, section 4).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smtool.datasets import to_uint8
from smtool.features.extractor import Extractor, load_extractor
from smtool.metrics.kernel import paired_kernel_distance
from smtool.metrics.reconstruction import psnr
from smtool.networks.tokenizer import Tokenizer
from smtool.pipelines.spectrum.decoding import decoded
from smtool.pipelines.spectrum.numbers import numbers
from smtool.pipelines.spectrum.units import Units, mean_and_half_width
from smtool.spectrum import fit_cutoff, fitted_low_pass
from smtool.spectrum.jackknife import student_t_quantile

ROWS_REMOVED = tuple(range(15))
SHOWN_ROWS = (0, 4, 8, 10, 12, 14)
SHOWN_IMAGES = 2
LARGEST_PSNR = 60.0
"""dB. Above, two images differ by less than 8 bits can show; lossless controls would otherwise have a gap of float rounding."""
_ESTIMATOR = "cubic kernel, unbiased for pairs: those within a unit are left out"


@dataclass(frozen=True)
class LowPass:
    """section: what the report's JSON holds. shown: for the first images what each removal leaves and what it is decoded to,
    (images, 2, len(SHOWN_ROWS), 3, H, W) uint8, or None where there is no curve."""

    section: dict[str, Any]
    shown: Tensor | None = None


@torch.no_grad()
def low_pass(
    codec: Tokenizer,
    images: Tensor,
    latents: Tensor,
    reconstructions: Tensor | None,
    units: Units,
    *,
    extractor: Extractor | None = None,
) -> LowPass:
    """The curve of images (N, 3, H, W) in [-1, 1] and their raw latents (N, C, h, w), sampled from the posterior.

    14 decodings an image: without removal that is `reconstructions`. PSNR is that of unclamped images; the kernel distance, on
    the extractor's features (default: "random", which needs no weights), is that of 8-bit images. A latent smaller than 8 cells
    is one block, its cut-off scaled (`block = "fit"`). {"reason"} where blocks do not fill a side, or without a decoder.
    """
    if reconstructions is None:
        return LowPass({"reason": "it has no decoder"})
    extractor = extractor or load_extractor("random").to(images.device)
    aligned, control, features, shown = [], [], [], []
    try:
        for rows, target, answer in _removals(codec, images, latents, reconstructions):
            aligned.append(psnr(answer, target).clamp(max=LARGEST_PSNR))
            control.append(psnr(reconstructions, target).clamp(max=LARGEST_PSNR))
            features.append((_features(extractor, answer), _features(extractor, target)))
            if rows in SHOWN_ROWS:
                shown.append(to_uint8(torch.stack([target[:SHOWN_IMAGES], answer[:SHOWN_IMAGES]], 1)).cpu())
    except ValueError as error:      # sides that blocks do not fill
        return LowPass({"reason": str(error)})
    block, _ = fit_cutoff(min(latents.shape[-2:]), 0)
    section = {
        "posterior": "deterministic" if codec.deterministic else "sample",
        "convention": f"relative: blocks of 8 pixels and of {block} latent cells; PSNR counts to {LARGEST_PSNR:g} dB",
        "clamped": False,
        "images": len(images),
        "units": len(units),
        "rows_removed": list(ROWS_REMOVED),
        **_decibels(torch.stack(aligned, 1).cpu().double(), torch.stack(control, 1).cpu().double(), units),
        "kernel_distance": _kernel_distances(features, units, extractor.name),
    }
    return LowPass(section, torch.stack(shown, 2))


def _removals(
    codec: Tokenizer, images: Tensor, latents: Tensor, reconstructions: Tensor
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For every n: n, LP_n x, D(LP_n z); one n in memory at a time."""
    for rows in ROWS_REMOVED:
        target = fitted_low_pass(images, rows)
        yield rows, target, decoded(codec, fitted_low_pass(latents, rows)) if rows else reconstructions


def _features(extractor: Extractor, images: Tensor) -> Tensor:
    return torch.cat([extractor(to_uint8(part)) for part in images.split(16)]).cpu()


def _decibels(aligned: Tensor, control: Tensor, units: Units) -> dict[str, Any]:
    """PSNR of D(LP z) against LP x, (N, 15), its control D(z) against LP x, and the gap PSNR(D(z), x) - PSNR(D(LP z), LP x)."""
    gap, half_width = mean_and_half_width(units.collapse(aligned[:, :1] - aligned))
    return {
        "psnr": numbers(units.collapse(aligned).mean(0)),
        "control": numbers(units.collapse(control).mean(0)),
        "gap": {"value": numbers(gap), "half_width": numbers(half_width)},
    }


def _kernel_distances(features: list[tuple[Tensor, Tensor]], units: Units, name: str) -> dict[str, Any]:
    """Of D(LP z) from LP x for each n; half-widths t(n - 1) times the jackknife's error over units."""
    part: dict[str, Any] = {"features": name, "clamped": True, "estimator": _ESTIMATOR, "value": None, "half_width": None}
    count = len(units)
    if count < 2:
        return part | {"reason": f"a kernel distance needs at least 2 {units.name}s, found {count}"}
    number = {group: index for index, group in enumerate(dict.fromkeys(units.groups))}
    groups = torch.tensor([number[group] for group in units.groups])
    found = [paired_kernel_distance(answer, target, groups) for answer, target in features]
    t = student_t_quantile(0.975, count - 1)
    values, widths = (torch.tensor(column) for column in zip(*((one.value, t * one.error) for one in found), strict=True))
    return part | {"value": numbers(values), "half_width": None if count == 2 else numbers(widths)}
