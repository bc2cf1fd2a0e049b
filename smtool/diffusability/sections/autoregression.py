"""Spectral autoregression: the highest frequency whose SNR is above a threshold, at each time of three diffusion processes.

Measured from the spectrum, and predicted from the power law fitted to it (spectrum.md#spectral-autoregression).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from smtool.config import Config
from smtool.diffusability.sections.parts import (
    Finding,
    Number,
    Reason,
    Row,
    array,
    finding,
    measured,
    numbers,
    or_reason,
    shown,
    table_of,
)
from smtool.diffusability.sections.physical import PhysicalReading
from smtool.diffusion import DDPM, VPSDE, Flow
from smtool.report.plots import Curve
from smtool.report.plots.noise_crossing import highest_frequency_figure
from smtool.report.tables import Table
from smtool.spectrum.autoregression import (
    FallingPower,
    falling_power,
    highest_frequency,
    prediction_error,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ProcessName = Literal["flow", "ddpm", "vp-sde"]
SNR_SCALE = 4.0
"""The factor of the SNR in DCTdiff's models of 64 px, drawn beside the plain VP-SDE."""
SHOWN_TIMES = (0.8, 0.6, 0.4, 0.2)
LARGEST_SHOWN_GAIN = 100
"""A nearly white spectrum multiplies f* by any factor."""
GOOD_PREDICTION = 0.25
"""Root mean square error in octaves up to which a prediction is said to follow the measured frequency."""


class HighestFrequency(Config):
    """f* over the times of the section, in cycles per side, as measured and as the power law predicts it.

    process: "flow" (x_t = (1 - t) x + t noise), "ddpm" (1000 steps of the scaled-linear schedule, t = n / 1000), "vp-sde" (the
    continuous one). snr_scale: factor of the SNR. measured: null where all frequencies are below the threshold; the highest
    ring where all are above. predicted: not limited to the rings.
    """

    process: ProcessName
    snr_scale: float
    measured: Row
    predicted: Row


class Autoregression(Config):
    """f* of one latent. threshold: gamma, the SNR above which a frequency counts; level, exponent: K and a of the power law.

    highest: the highest frequency of the spectrum, in cycles per side. rms_octaves, largest_octaves: |log2(predicted / measured)|
    over all noise levels at which the measured f* is inside the fitted range. snr_scale: a factor c of the SNR; predicted_gain:
    c^(1 / a), measured_gain: the measured factor of f* (median).
    """

    threshold: float
    highest: float
    level: float
    exponent: float
    rms_octaves: float
    largest_octaves: float
    snr_scale: float
    predicted_gain: float
    measured_gain: Number
    times: Row
    processes: list[HighestFrequency]


Parts = Mapping[str, Autoregression | Reason]


@or_reason
def measure_autoregression(head: PhysicalReading, times: Tensor, *, threshold: float) -> Autoregression:
    """f* of a headline reading at times (T,) in (0, 1). Raises ValueError for a threshold that is not positive."""
    if isinstance(head.slope, Reason):
        raise ValueError(f"no power law could be fitted: {head.slope.reason}")
    frequency, power = (torch.from_numpy(array(row)) for row in (head.cycles_per_side, head.power))
    count, side = torch.tensor(head.cells, dtype=torch.float64), min(head.size)
    low, high = head.slope.fit_range
    fitted = (frequency >= low * side) & (frequency <= high * side)
    law = falling_power(frequency[fitted], power[fitted], count[fitted], head.slope.exponent)
    error = prediction_error(frequency[fitted], power[fitted], law, snr_scale=SNR_SCALE)
    return Autoregression(
        threshold=threshold, highest=frequency[-1].item(), level=law.level, exponent=law.exponent,
        rms_octaves=error.rms, largest_octaves=error.largest,
        snr_scale=SNR_SCALE, predicted_gain=law.gain(SNR_SCALE), measured_gain=error.gain,
        times=numbers(times),
        processes=[
            _over_time(process, scale, ratio, frequency, power, law, threshold) for process, scale, ratio in ratios(times)
        ],
    )


def ratios(times: Tensor) -> list[tuple[ProcessName, float, Tensor]]:
    """Name, SNR scale and alpha^2 / sigma^2 at the times (T,), for every process of the section."""
    found: list[tuple[ProcessName, float, Tensor]] = []
    for config, scale in ((Flow(), 1.0), (DDPM(), 1.0), (VPSDE(), 1.0), (VPSDE(snr_scale=SNR_SCALE), SNR_SCALE)):
        alpha, sigma = config.build().alpha_sigma(times)
        found.append((config.kind, scale, (alpha / sigma).square()))
    return found


def _over_time(
    process: ProcessName, scale: float, ratio: Tensor, frequency: Tensor, power: Tensor, law: FallingPower, threshold: float
) -> HighestFrequency:
    return HighestFrequency(
        process=process, snr_scale=scale,
        measured=numbers(highest_frequency(frequency, power, ratio, threshold=threshold)),
        predicted=numbers(law.highest_frequency(ratio, threshold=threshold)),
    )


def autoregression_findings(part: Autoregression | Reason | None) -> list[Finding]:
    """Finding on the order in which frequencies emerge and on how well the power law predicts it."""
    if not isinstance(part, Autoregression):
        return []
    follows = "follows" if part.rms_octaves <= GOOD_PREDICTION else "does not follow"
    gain = "" if part.measured_gain is None else f"{part.measured_gain:.2f}, and by "
    said = (
        f"In generation, frequencies emerge from low to high; the highest one with an SNR above {part.threshold:g} {follows} the "
        f"fitted power law (rms error {part.rms_octaves:.2f} octaves). An SNR {part.snr_scale:g} times as large multiplies it by "
        f"{gain}{part.predicted_gain:.2f} in that law."
    )
    return [finding("autoregression", "note", said, rms_octaves=part.rms_octaves, exponent=part.exponent,
                    measured_gain=part.measured_gain, predicted_gain=part.predicted_gain)]


def table(parts: Parts) -> Table | None:
    """One row per autoencoder: f* of the flow at SHOWN_TIMES, and its prediction. None without a measured one."""
    columns = (*(f"f* at t={t:g}" for t in SHOWN_TIMES), "a", "error", "gain", "law's gain")
    thresholds = {part.threshold for _, _, part in measured(parts)}
    note = (
        f"f*: highest frequency in cycles per side whose SNR exceeds {', '.join(f'{one:g}' for one in thresholds)}, at time "
        "t of the flow (all: the highest one of the latents; none: below the lowest); a: exponent of the latents' power law; "
        f"error: of its f*, rms in octaves; gain: factor of f* where the SNR is {SNR_SCALE:g} times as large; law's gain: "
        f"{SNR_SCALE:g}^(1/a)"
    )
    return table_of(columns, parts, _cells, note)


def _cells(part: Autoregression) -> tuple[str, ...]:
    flow = next(one for one in part.processes if one.process == "flow")
    times, found = array(part.times), flow.measured
    at = [found[int(abs(times - t).argmin())] for t in SHOWN_TIMES]
    shown_at = ["none" if value is None else "all" if value == part.highest else f"{value:.3g}" for value in at]
    return (*shown_at, shown(part.exponent), shown(part.rms_octaves), shown(part.measured_gain),
            shown(part.predicted_gain) if part.predicted_gain <= LARGEST_SHOWN_GAIN else f"> {LARGEST_SHOWN_GAIN}")


def draw_highest(parts: Parts) -> "Figure":
    """Figure of f* over time for every process: measured and predicted."""
    panels: dict[str, list[Curve]] = {"flow": [], "ddpm": [], "vp-sde": []}
    for colour, label, part in measured(parts):
        for one in part.processes:
            is_first, times = one.process == "flow", array(part.times).tolist()
            plain = one.snr_scale == 1
            panels[one.process].append(Curve(label if is_first else "", times, array(one.measured), colour=colour,
                                             role="latent" if plain else "control"))
            if plain:
                panels[one.process].append(Curve("", times, array(one.predicted), role="fitted", colour=colour))
    highest = max(part.highest for _, _, part in measured(parts))
    return highest_frequency_figure(panels, highest=highest, snr_scale=SNR_SCALE)
