"""The noise-crossing lens: what a diffusion model meets in a normalized latent, ring by ring.

Everything is a closed form of one spectrum S, the headline's (Spectrum Matching, Proposition 3.1); a ring weighs as many cells as
it has.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from smtool.pipelines.spectrum.numbers import numbers, or_reason
from smtool.spectrum.damping import DampedSampler, last_step_amplitude, sampler_amplitude
from smtool.spectrum.theory import crossing_time, learnable_power, time_shift, velocity_floor

Reading = Mapping[str, Any]
NUM_TIMES = 50
SAMPLERS: tuple[tuple[DampedSampler, int, float], ...] = (
    ("euler-maruyama", 100, 0.04), ("euler-maruyama", 250, 0.04), ("euler", 50, 0.02), ("heun", 50, 0.02),
)
"""Sampler, steps, and the time of the last step to 0: SiT's and REPA's stochastic one, and even steps without noise."""


def lens(head: Reading, reference: tuple[str, Reading] | None) -> dict[str, Any]:
    """What noise does to the latent of a headline reading (PHYSICAL, normalized).

    reference: name and headline of the latent whose time schedule is to be matched; None for that latent itself.
    """
    power, count = _powers(head), torch.tensor(head["cells"], dtype=torch.float64)
    if not bool((power > 0).all()):
        return {"reason": "some ring of this latent holds no power"}
    times = torch.arange(1, NUM_TIMES, dtype=torch.float64) / NUM_TIMES
    share = count * power.sqrt()
    return {
        "posterior": head["posterior"],
        "cycles_per_side": head["cycles_per_side"],
        "count": head["cells"],
        "power": head["power"],
        "times": numbers(times),
        "floor": [numbers(row) for row in velocity_floor(power, times[:, None])],
        "learnable": [numbers(row) for row in learnable_power(power, times[:, None], "x")],
        "learnable_of": "x",
        "crossing": numbers(crossing_time(power)),
        "floor_share": numbers(share / share.sum()),
        "shift": _shift(head, reference),
        "damping": [_damping(power, *sampler) for sampler in SAMPLERS],
    }


def _shift(head: Reading, reference: tuple[str, Reading] | None) -> dict[str, Any]:
    """The time shift that brings this latent nearest to the reference's signal-to-noise ratios, over the cycles both have."""
    if reference is None:
        return {"reason": "it is the reference"}
    name, other = reference
    coarse = min(head, other, key=lambda reading: reading["cycles_per_side"][-1])
    at, count = (torch.tensor(coarse[key], dtype=torch.float64) for key in ("cycles_per_side", "cells"))

    def found() -> dict[str, Any]:
        shift = time_shift(_at(other, at), _at(head, at), count=count)
        return {
            "reference": name,
            "by_cells": shift.by_cells,
            "by_energy": shift.by_energy,
            "spread": shift.spread,
            "cannot_change": shift.rules_disagree,
        }

    return or_reason(found)


def _at(reading: Reading, cycles_per_side: Tensor) -> Tensor:
    """Power at these frequencies, straight between rings in the logarithms; all sizes share their rings but the last."""
    x, y = torch.tensor(reading["cycles_per_side"], dtype=torch.float64).log(), _powers(reading).log()
    at = cycles_per_side.log().clamp(x[0], x[-1])
    right = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    weight = (at - x[right - 1]) / (x[right] - x[right - 1])
    return (y[right - 1] + weight * (y[right] - y[right - 1])).exp()


def _damping(power: Tensor, sampler: DampedSampler, steps: int, last_t: float) -> dict[str, Any]:
    """Variance that comes out over variance that should, S' / S: of the last step alone from an exact x_t, and of all steps."""
    return {
        "sampler": sampler,
        "steps": steps,
        "last_t": last_t,
        "factor": numbers(last_step_amplitude(power, sampler, last_t=last_t).square()),
        "whole": numbers(sampler_amplitude(power, sampler, steps=steps, last_t=last_t).square()),
    }


def _powers(reading: Reading) -> Tensor:
    return torch.tensor([value or 0.0 for value in reading["power"]], dtype=torch.float64)
