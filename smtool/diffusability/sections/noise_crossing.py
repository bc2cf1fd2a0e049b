"""Noise crossing: for each ring of a normalized latent, the diffusion time at which noise exceeds the signal (SNR below 1), the
learnable power and the loss floor.

All are closed forms of one spectrum S, that of the headline reading (arXiv 2603.14645, Proposition 3.1;
spectrum.md#noise-crossing); a ring is weighted by its number of cells.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from smtool.config import Config
from smtool.diffusability.sections.autoregression import Autoregression, autoregression_findings, measure_autoregression
from smtool.diffusability.sections.parts import Finding, Matrix, Reason, Row, Values, array, finding, numbers, or_reason
from smtool.diffusability.sections.physical import PhysicalReading
from smtool.diffusability.sections.recoloured import Recoloured, recoloured_crossings, recolouring_findings
from smtool.spectrum.sampler_gain import GainSampler, last_step_amplitude, sampler_amplitude
from smtool.spectrum.theory import crossing_time, learnable_power, time_shift, velocity_floor

NUM_TIMES = 50
SAMPLERS: tuple[tuple[GainSampler, int, float], ...] = (
    ("euler-maruyama", 100, 0.04), ("euler-maruyama", 250, 0.04), ("euler", 50, 0.02), ("heun", 50, 0.02),
)
"""Sampler, number of steps, and the time from which the last step goes to 0: the stochastic sampler of SiT and REPA, and
deterministic samplers with equal steps."""
SMALLEST_GAIN = 0.9
"""Fraction of a band's variance. A last step that returns less removes about half a decibel or more."""


class TimeShift(Config):
    """The s of the time shift t' = s t / (1 + (s - 1) t) that matches the reference's signal-to-noise ratios, by two rules.

    by_cells: equal mean log SNR over cells; by_energy: equal noise level at which half of the power has an SNR below 1. spread:
    difference of ln[t* / (1 - t*)] between the first and the last ring; cannot_change: one rule asks for s > 1 and the other for
    s < 1, so that no shift matches.
    """

    reference: str
    by_cells: float
    by_energy: float
    spread: float
    cannot_change: bool


class SamplerGain(Config):
    """Variance of sampled latents over variance of true latents, by ring. factor: of the last step alone; whole: of all steps."""

    sampler: str
    steps: int
    last_t: float
    factor: Row
    whole: Row


class NoiseCrossing(Config):
    """SNR, learnable power and loss floor of a normalized latent: tables over times (rows) and rings; data at t = 0.

    floor: error of v that remains for a perfect network; learnable: reduction of the error of x; crossing: time t above which a
    ring's SNR is below 1; floor_share: the ring's fraction of the floor, over all times; damping: gain of several samplers;
    recoloured: crossing times after recolouring, for the report's delta and for white; autoregression: the highest frequency
    above the noise at each time (None in files of earlier versions).
    """

    posterior: str
    cycles_per_side: Row
    count: list[int]
    power: Row
    times: Row
    floor: Matrix
    learnable: Matrix
    learnable_of: Literal["x"]
    crossing: Row
    floor_share: Row
    shift: TimeShift | Reason
    damping: list[SamplerGain]
    recoloured: tuple[Recoloured, ...] = ()
    autoregression: Autoregression | Reason | None = None

    @property
    def span(self) -> tuple[float, float]:
        """Crossing times of the lowest and of the highest ring."""
        return self.crossing[0] or 0.0, self.crossing[-1] or 0.0


Parts = Mapping[str, NoiseCrossing | Reason]


def measure_all(
    heads: Mapping[str, PhysicalReading | None], reference: str, *, threshold: float = 1.0
) -> dict[str, NoiseCrossing | Reason]:
    """The section of every headline reading (None: PHYSICAL was not requested), with the time shift to the label `reference`.

    threshold: the SNR above which a frequency counts as visible in `autoregression`.
    """
    missing = Reason(reason="it needs PHYSICAL spectra, which were not requested")
    other = heads.get(reference)
    return {
        label: missing if head is None or other is None else
        measure(head, None if label == reference else (reference, other), threshold=threshold)
        for label, head in heads.items()
    }


@or_reason
def measure(
    head: PhysicalReading, reference: tuple[str, PhysicalReading] | None, *, threshold: float = 1.0
) -> NoiseCrossing:
    """The section of one headline reading. reference: label and headline reading to match; None for the reference itself."""
    power, count = _powers(head), torch.tensor(head.cells, dtype=torch.float64)
    if not bool((power > 0).all()):
        raise ValueError("a ring of this latent has no power")
    times = torch.arange(1, NUM_TIMES, dtype=torch.float64) / NUM_TIMES
    floor = count * power.sqrt()
    return NoiseCrossing(
        posterior=head.posterior, cycles_per_side=head.cycles_per_side, count=head.cells, power=head.power,
        times=numbers(times),
        floor=[numbers(row) for row in velocity_floor(power, times[:, None])],
        learnable=[numbers(row) for row in learnable_power(power, times[:, None], "x")],
        learnable_of="x",
        crossing=numbers(crossing_time(power)),
        floor_share=numbers(floor / floor.sum()),
        shift=Reason(reason="it is the reference") if reference is None else _shift(head, *reference),
        damping=[_sampler_gain(power, *sampler) for sampler in SAMPLERS],
        recoloured=recoloured_crossings(power, count, head.target),
        autoregression=measure_autoregression(head, times, threshold=threshold),
    )


@or_reason
def _shift(head: PhysicalReading, name: str, other: PhysicalReading) -> TimeShift:
    """The time shift from this latent's SNRs to the reference's, over the frequencies that both have."""
    coarse = min(head, other, key=lambda reading: reading.cycles_per_side[-1] or 0.0)
    at, count = _tensor(coarse.cycles_per_side), torch.tensor(coarse.cells, dtype=torch.float64)
    shift = time_shift(_at(other, at), _at(head, at), count=count)
    return TimeShift(
        reference=name, by_cells=shift.by_cells, by_energy=shift.by_energy, spread=shift.spread,
        cannot_change=shift.rules_disagree,
    )


def _at(reading: PhysicalReading, cycles_per_side: Tensor) -> Tensor:
    """Power at these frequencies, interpolated linearly in log power over log frequency between rings."""
    x, y = _tensor(reading.cycles_per_side).log(), _powers(reading).log()
    at = cycles_per_side.log().clamp(x[0], x[-1])
    right = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    weight = (at - x[right - 1]) / (x[right] - x[right - 1])
    return (y[right - 1] + weight * (y[right] - y[right - 1])).exp()


def _sampler_gain(power: Tensor, sampler: GainSampler, steps: int, last_t: float) -> SamplerGain:
    """Gain S' / S of the last step alone, from an exact x_t, and of all steps."""
    return SamplerGain(
        sampler=sampler, steps=steps, last_t=last_t,
        factor=numbers(last_step_amplitude(power, sampler, last_t=last_t).square()),
        whole=numbers(sampler_amplitude(power, sampler, steps=steps, last_t=last_t).square()),
    )


def _powers(reading: PhysicalReading) -> Tensor:
    return _tensor(reading.power).nan_to_num(0.0)


def _tensor(values: Values) -> Tensor:
    return torch.from_numpy(array(values))


def findings(part: NoiseCrossing | Reason) -> list[Finding]:
    """Findings on crossing times, the loss floor, time shifts and the damping by samplers."""
    return [] if isinstance(part, Reason) else [
        _crossing(part), *autoregression_findings(part.autoregression), *recolouring_findings(part.recoloured),
        *_shifted(part.shift), *_weakened(part),
    ]


def _crossing(part: NoiseCrossing) -> Finding:
    cycles, (first, last) = array(part.cycles_per_side), part.span
    upper = float(sum(array(part.floor_share)[cycles > cycles[-1] / 2]))
    return finding(
        "noise", "note",
        f"As noise grows, the SNR falls below 1 at t = {last:.2f} for the highest frequencies and at t = {first:.2f} for the "
        f"lowest; {100 * upper:.0f} % of the loss floor, the loss of a perfect network, lies in the upper half of the "
        "frequencies.",
        first=first, last=last, upper_half_share=upper,
    )


def _shifted(shift: TimeShift | Reason) -> list[Finding]:
    if isinstance(shift, Reason):
        return []
    numbers = {"by_cells": shift.by_cells, "by_energy": shift.by_energy, "spread": shift.spread}
    if shift.cannot_change:
        said = (f"No time shift gives these latents the SNRs of {shift.reference}: matching by cells asks for s = "
                f"{shift.by_cells:.2f} and by energy for s = {shift.by_energy:.2f}, because the spectra differ in shape.")
    else:
        said = (f"A time shift of s = {shift.by_cells:.2f} (matched by cells) to {shift.by_energy:.2f} (by energy) gives these "
                f"latents the SNRs of {shift.reference}.")
    return [finding("shift", "note", said, **numbers)]


def _weakened(part: NoiseCrossing) -> list[Finding]:
    """Finding on the sampler whose last step weakens a band most, if its gain is below SMALLEST_GAIN."""
    found = []
    for one in part.damping:
        factors = np.nan_to_num(array(one.factor), nan=1.0)
        worst = int(factors.argmin())
        found.append((float(factors[worst]), part.cycles_per_side[worst] or 0.0, one))
    factor, cycles, one = min(found, key=lambda item: item[0])
    if factor >= SMALLEST_GAIN:
        return []
    said = (f"The last step of {one.sampler} (from t = {one.last_t:g}) returns only {100 * factor:.0f} % of the variance "
            f"at {cycles:.3g} cycles per side: samples have too little detail there, whatever the network learns.")
    return [finding("sampler", "warn", said, factor=factor, cycles_per_side=cycles)]
