"""The noise crossing on the page: figures and tables of the sections `noise_crossing` and `autoregression`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from smtool.diffusability.sections import autoregression
from smtool.diffusability.sections.autoregression import Autoregression
from smtool.diffusability.sections.noise_crossing import NoiseCrossing, Parts
from smtool.diffusability.sections.parts import Chapter, Plot, Reason, Values, array, measured, shown, table_of
from smtool.diffusability.sections.recoloured import law_name
from smtool.report.plots import Curve
from smtool.report.plots.noise_crossing import BandsOverTime, crossing_figure, noise_crossing_figure
from smtool.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        return Chapter(title, pictures=("noised",))
    bands = {label: _bands(part) for _, label, part in found}
    return Chapter(title, (
        "Computed from the power spectrum, assuming Gaussian latents with independent frequencies (Spectrum Matching, "
        "Proposition 3.1).",
        Plot("noise-crossing", lambda: noise_crossing_figure(bands), *_BANDS_WORDS),
        Plot("crossing", lambda: draw_crossing(found), *_CROSSING_WORDS),
        table(parts),
        *_autoregression(parts),
    ), pictures=("noised",))


def _autoregression(parts: Parts) -> tuple[str | Plot | Table | None, ...]:
    """The blocks on f*, without those of files that do not have it. Empty where no autoencoder has it."""
    found = autoregressions(parts)
    if not measured(found):
        return ()
    return (
        "Image diffusion is spectral autoregression (DCTdiff, arXiv 2412.15032): noise is white and spectra fall, so at time t "
        "the SNR is above a threshold up to a frequency f*(t), which rises as noise is removed. For a power law K f^-a it is "
        "f* = (K R / threshold)^(1/a), with R = alpha^2 / sigma^2.",
        Plot("highest-frequency", lambda: autoregression.draw_highest(found), *_HIGHEST_WORDS),
        autoregression.table(found),
    )


def autoregressions(parts: Parts) -> dict[str, Autoregression | Reason]:
    """The part on f* of every autoencoder that has one, or the reason why it could not be measured."""
    found = {label: part if isinstance(part, Reason) else part.autoregression for label, part in parts.items()}
    return {label: part for label, part in found.items() if part is not None}


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
_HIGHEST_WORDS = (
    "The highest frequency above the noise over diffusion time, for flow, DDPM and VP-SDE: measured and predicted.",
    "Highest frequency whose SNR is above the threshold, from noise (left) to data (right). Solid: measured from the spectrum; a "
    "horizontal end means that all frequencies of the latents are above the noise. Dash-dotted: predicted by the fitted power "
    "law. Dashed: the VP-SDE with the SNR of DCTdiff's models of 64 px, four times as large; for a power law, f* is larger by "
    "one factor at all times. Good: a line that rises slowly, so that there is time for every octave.",
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
