"""Noise crossing: for each ring of a normalized latent, the diffusion time at which noise exceeds the signal (SNR below 1), the
learnable power and the loss floor.

All are closed forms of one spectrum S, that of the headline reading (arXiv 2603.14645, Proposition 3.1;
spectrum.md#noise-crossing); a ring is weighted by its number of cells.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from smtool.config import Config
from smtool.diffusability.sections.parts import (
    Chapter,
    Finding,
    Matrix,
    Plot,
    Reason,
    Row,
    Values,
    array,
    finding,
    measured,
    numbers,
    or_reason,
    shown,
    table_of,
)
from smtool.diffusability.sections.physical import PhysicalReading
from smtool.diffusability.sections.recoloured import Recoloured, law_name, recoloured_crossings, recolouring_findings
from smtool.report.plots import Curve
from smtool.report.plots.noise_crossing import BandsOverTime, crossing_figure, noise_crossing_figure
from smtool.report.tables import Table
from smtool.spectrum.sampler_gain import GainSampler, last_step_amplitude, sampler_amplitude
from smtool.spectrum.theory import crossing_time, learnable_power, time_shift, velocity_floor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    recoloured: crossing times after recolouring, for the report's delta and for white.
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

    @property
    def span(self) -> tuple[float, float]:
        """Crossing times of the lowest and of the highest ring."""
        return self.crossing[0] or 0.0, self.crossing[-1] or 0.0


Parts = Mapping[str, NoiseCrossing | Reason]


def measure_all(heads: Mapping[str, PhysicalReading | None], reference: str) -> dict[str, NoiseCrossing | Reason]:
    """The section of every headline reading (None: PHYSICAL was not requested), with the time shift to the label `reference`."""
    missing = Reason(reason="it needs PHYSICAL spectra, which were not requested")
    other = heads.get(reference)
    return {
        label: missing if head is None or other is None else
        measure(head, None if label == reference else (reference, other))
        for label, head in heads.items()
    }


@or_reason
def measure(head: PhysicalReading, reference: tuple[str, PhysicalReading] | None) -> NoiseCrossing:
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
        _crossing(part), *recolouring_findings(part.recoloured), *_shifted(part.shift), *_weakened(part)
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


def table(parts: Parts) -> Table | None:
    columns = ("first SNR < 1", "last SNR < 1", "reference", "shift by cells", "shift by energy", "a shift helps")
    note = (
        "SNR < 1: time t of the highest (first) and lowest (last) frequency; shift: s of the time shift "
        "t' = s t / (1 + (s - 1) t) that matches the reference's SNRs"
    )
    return table_of(columns, parts, _cells, note)


def _cells(part: NoiseCrossing) -> tuple[str, ...]:
    (lowest, highest), shift = part.span, part.shift
    if isinstance(shift, Reason):
        return shown(highest), shown(lowest), shift.reason, "-", "-", "-"
    helps = "no: the shapes differ" if shift.cannot_change else "yes"
    return shown(highest), shown(lowest), shift.reference, shown(shift.by_cells), shown(shift.by_energy), helps


def chapter(parts: Parts) -> Chapter:
    title = "Noise crossing: when diffusion noise hides each frequency"
    if not (found := measured(parts)):
        return Chapter(title)
    bands = {label: _bands(part) for _, label, part in found}
    return Chapter(title, (
        "Computed from the power spectrum, assuming Gaussian latents with independent frequencies (Spectrum Matching, "
        "Proposition 3.1).",
        Plot("noise-crossing", lambda: noise_crossing_figure(bands), *_BANDS_WORDS),
        Plot("crossing", lambda: draw_crossing(found), *_CROSSING_WORDS),
        table(parts),
    ))


_BANDS_WORDS = (
    "For each latent: the fraction of every band's power that can be estimated from the noisy latent, and the loss floor, over "
    "diffusion time.",
    "Above: the fraction of each band's power that can be estimated at time t; the SNR falls below 1 where the line crosses one "
    "half. Good: lines spread over all times, with the low frequencies (dark, thick) at the largest t, so that a model generates "
    "from coarse to fine. Lines close together: all frequencies are generated at about the same time. Below: the squared error "
    "that remains for a perfect network predicting the velocity.",
)
_CROSSING_WORDS = (
    "Left: crossing time over frequency, as measured and after recolouring. Middle: cumulative fraction of the loss floor. "
    "Right: fraction of the variance that a sampler's last step returns.",
    "Left: time at which the SNR of each frequency falls below 1; white latents give a flat line. The thin lines show the "
    "times after recolouring, a filter of the normalized latents that needs no training: a gain g of a frequency multiplies "
    "t / (1 - t) of its crossing by g. Middle: fraction of the loss floor below a frequency; near the dashed line (white "
    "latents), most of the loss lies in the finest detail. Right: below 1, the sampler's last step weakens that band, whatever "
    "the network learns.",
)


def draw_crossing(found: Sequence[tuple[int, str, NoiseCrossing]]) -> "Figure":
    """Figure of crossing times, cumulative loss floor and sampler gains, with all latents in each panel."""
    crossings, floors, gains = [], [], []
    for colour, label, part in found:
        cycles = array(part.cycles_per_side).tolist()
        crossings.append(Curve(label, cycles, array(part.crossing), colour=colour))
        crossings += [
            Curve("", cycles, array(one.crossing), role="published" if one.flatten == "white" else "control", colour=colour)
            for one in part.recoloured
        ]
        floors.append(Curve("", cycles, _cumulated(part.floor_share), colour=colour))
        gains.append(Curve("", cycles, array(part.damping[0].factor), colour=colour))
        gains.append(Curve("", cycles, array(part.damping[-1].factor), role="control", colour=colour))
    longest = max((part for *_, part in found), key=lambda part: part.cycles_per_side[-1] or 0.0)
    floors.append(Curve("", array(longest.cycles_per_side).tolist(), _cumulated(longest.count), role="target"))
    laws = {law_name(one.flatten) for *_, part in found for one in part.recoloured if one.flatten != "white"}
    note = f"recoloured, dashed: flatten = {', '.join(sorted(laws))}; dotted: white" if laws else ""
    solid, dashed = (f"{one.sampler}, {one.steps} steps" for one in (longest.damping[0], longest.damping[-1]))
    return crossing_figure(crossings, floors, gains, sampler=solid, control=dashed, recoloured=note)


def _bands(part: NoiseCrossing) -> BandsOverTime:
    """The rings nearest to each octave, and the last one: few enough lines to distinguish."""
    cycles, power = array(part.cycles_per_side), array(part.power)
    octaves = 2.0 ** np.arange(0, np.log2(cycles[-1]))
    chosen = sorted({int(np.abs(np.log(cycles / octave)).argmin()) for octave in octaves} | {len(cycles) - 1})
    learnable, floor = (np.stack([array(row) for row in rows])[:, chosen] for rows in (part.learnable, part.floor))
    crossing = array(part.crossing)[chosen].tolist()
    return BandsOverTime(array(part.times).tolist(), cycles[chosen].tolist(), learnable / power[chosen], floor, crossing)


def _cumulated(values: Values) -> np.ndarray:
    total = np.cumsum(array(values))
    return total / total[-1]
