"""The direction section: how the unit token vectors of latents vary in space, before and after the alignments' filters."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from smtool.networks.posterior import LatentStats
from smtool.pipelines.spectrum.numbers import finite, numbers, or_reason
from smtool.pipelines.spectrum.units import Units, mean_and_half_width
from smtool.spectrum import SPATIAL_MEASURES, dct2, difference_of_gaussians, spatial_normalize
from smtool.spectrum.transfer import band_of_cell

BANDS = 8
GAMMA = 0.6
DOG_SIGMAS = (0.5, 4.0)
"""Widths in tokens of the recipe `repa-dog`; the paper prints none (facts section 9)."""
DOG_ALPHA = 1.0


@torch.no_grad()
def direction(latents: Tensor, stats: LatentStats, units: Units) -> dict[str, Any]:
    """RMSC, LDS and CDS of raw latents (N, C, h, w) once normalized, with the jackknife's intervals over units.

    energy: per band, mean energy of the unit tokens outside DC; it sums to the mean of RMSC^2 (Proposition 3.2). after: the same
    three numbers of the spatially normalized tokens (iREPA) and of their difference of Gaussians (REPA-DoG).
    """
    features = stats.normalize(latents.float())
    return {
        "images": len(latents),
        "tokens": list(latents.shape[-2:]),
        **_numbers(features, units),
        **_energy(features, units),
        "after": {
            "spatial_normalize": _numbers(spatial_normalize(features, GAMMA), units),
            "dog": _numbers(filtered_by_dog(features), units),
            "gamma": GAMMA,
            "dog_sigmas": list(DOG_SIGMAS),
            "dog_alpha": DOG_ALPHA,
        },
    }


def filtered_by_dog(features: Tensor) -> Tensor:
    """REPA-DoG's filter as this section applies it."""
    return difference_of_gaussians(features, *DOG_SIGMAS, DOG_ALPHA)


def _numbers(features: Tensor, units: Units) -> dict[str, Any]:
    return {name: or_reason(partial(_interval, measure, features, units)) for name, measure in SPATIAL_MEASURES.items()}


def _interval(measure: Callable[[Tensor], Tensor], features: Tensor, units: Units) -> dict[str, Any]:
    """One image at a time: on the way a feature map takes eight times its memory (twice a side, in float64)."""
    values = torch.cat([measure(image) for image in features.split(1)]).cpu().double()
    mean, half_width = mean_and_half_width(units.collapse(values[:, None]))
    return {"value": finite(mean.item()), "half_width": finite(half_width.item())}


def _energy(features: Tensor, units: Units) -> dict[str, Any]:
    """Energy per token of the unit tokens' DCT in each band of `band_of_cell`, DC left out."""
    height, width = features.shape[-2:]
    num_bands = min(BANDS, height, width)
    energy = dct2(torch.nn.functional.normalize(features, dim=1)).square().sum(1).double().cpu() / (height * width)
    energy[:, 0, 0] = 0                                                                     # (N, h, w)
    band = band_of_cell(height, width, num_bands).flatten()
    table = energy.new_zeros(len(energy), num_bands).index_add(1, band, energy.flatten(1))
    return {"bands": num_bands, "energy": numbers(units.collapse(table).mean(0))}
