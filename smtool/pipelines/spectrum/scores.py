"""What `smtool spectrum` reports of PHYSICAL spectra: dictionaries, ready for JSON, of labelled numbers with their intervals.

A spectrum's rows are what its intervals resample (units.py).
"""

import math
from typing import Any

import torch
from torch import Tensor

from smtool.pipelines.spectrum.numbers import finite, numbers, or_reason
from smtool.pipelines.spectrum.units import band, mean_and_half_width
from smtool.spectrum import (
    HIGHEST_OF_IMAGES,
    HIGHEST_OF_LATENTS,
    Spectrum,
    fit_delta_spectra,
    fit_power_law,
    physical_divergence_db,
)
from smtool.spectrum.jackknife import leave_one_out, student_t_quantile


def image_reading(images: Spectrum) -> dict[str, Any]:
    """Power and exponent of images at their own size, one row for each unit."""
    return power_and_band(images) | {"slope": slope(images, highest=HIGHEST_OF_IMAGES)}


def latent_reading(images: Spectrum, latents: Spectrum, *, delta: float) -> dict[str, Any]:
    """Power, exponent and delta of latents, and their distance from the target; images at the latents' size, rows paired."""
    return {
        **power_and_band(latents),
        "slope": slope(latents, highest=HIGHEST_OF_LATENTS),
        "delta": physical_delta(images, latents),
        "target": target(images, latents, delta=delta),
    }


def slope(spectrum: Spectrum, *, highest: float) -> dict[str, Any]:
    """The calibrated exponent a of power ~ f^-a."""

    def fitted() -> dict[str, Any]:
        law = fit_power_law(spectrum, highest=highest)
        return {
            "exponent": law.exponent,
            "half_width": finite(law.half_width),
            "steeper_than_4_5": law.steeper_than_4_5,
            "fit_range": list(law.fit_range),
            "rings": law.num_rings,
            "residual_db": law.residual_db,
            "quantiles_5_50_95": list(law.per_image_quantiles) if len(law.per_image) else None,
        }

    return or_reason(fitted)


def physical_delta(images: Spectrum, latents: Spectrum) -> dict[str, Any]:
    """delta of latents against images at the latents' size, paired rows."""

    def fitted() -> dict[str, Any]:
        found = fit_delta_spectra(images, latents)
        return {
            "value": found.delta,
            "half_width": finite(found.half_width),
            "half_width_jackknife": finite(found.half_width_jackknife),
            "allowance": found.allowance,
            "residual_db": found.residual_db,
            "is_power_law": found.is_power_law,
            "fit_range": list(found.fit_range),
            "rings": found.num_rings,
        }

    return or_reason(fitted)


def target(images: Spectrum, latents: Spectrum, *, delta: float) -> dict[str, Any]:
    """The images' spectrum flattened by f^delta (f in cycles per image side), and how far the latents are from it.

    power: in units of the images' own spectrum. gain_db: what brings the latents nearest to it (weights sqrt(cells), from 0.9
    cycles per frame up); residual_db: what remains, with its half-width; divergence_db: its weighted rms over the rings of a fit.
    """
    shape = (images.frequency * min(latents.size)) ** delta * _area_ratio(images)
    weight = latents.count.sqrt() * (latents.frequency >= 0.9 / min(latents.size))

    def decibel(image_power: Tensor, latent_power: Tensor) -> tuple[Tensor, Tensor]:
        ratio = 10 * torch.log10(latent_power / (shape * image_power))
        return ratio, (weight * ratio).sum(-1, keepdim=True) / weight.sum()

    ratio, gain = decibel(images.mean(), latents.mean())
    half_width = torch.full_like(ratio, math.inf)
    if (rows := len(images)) > 1:
        replicates = torch.sub(*decibel(leave_one_out(images.power), leave_one_out(latents.power)))
        variance = (rows - 1) / rows * (replicates - replicates.mean(0)).square().sum(0)
        half_width = student_t_quantile(0.975, rows - 1) * variance.sqrt()
    return {
        "delta": delta,
        "power": numbers(shape * images.mean()),
        "gain_db": finite(-gain.item()),
        "residual_db": numbers(ratio - gain),
        "half_width": numbers(half_width),
        "divergence_db": or_reason(lambda: {"value": physical_divergence_db(images, latents, delta=delta)}),
    }


def power_and_band(spectrum: Spectrum) -> dict[str, Any]:
    """The set-averaged spectrum with its band."""
    mean, half_width = mean_and_half_width(spectrum.power)
    return {
        "size": list(spectrum.size),
        "frequency": numbers(spectrum.frequency),
        "cycles_per_side": numbers(spectrum.frequency * min(spectrum.size)),
        "cells": [int(n) for n in spectrum.count],
        "power": numbers(mean),
        **band(mean, half_width),
    }


def _area_ratio(images: Spectrum) -> float:
    """From power at a latent's size back to the images' own: ideal downsampling scales it by this number's inverse."""
    return math.prod(images.source) / math.prod(images.size)
