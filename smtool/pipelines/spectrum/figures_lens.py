"""The noise-crossing lens as figures: what diffusion noise does to each latent, and to all of them side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smtool.pipelines.spectrum.curves import array
from smtool.report.plots import Curve
from smtool.report.plots.lens import BandsOverTime, crossing_figure, lens_figure

Result = Mapping[str, Any]
Lens = Mapping[str, Any]


def lens(result: Result) -> Figure | None:
    """A column for each latent."""
    found = _lenses(result)
    return lens_figure({label: _bands(part) for _, label, part in found}) if found else None


def crossing(result: Result) -> Figure | None:
    """Crossing times, shares of the loss floor and damping, all latents in each panel."""
    found = _lenses(result)
    if not found:
        return None
    crossings, shares, dampings = [], [], []
    for colour, label, part in found:
        cycles, samplers = part["cycles_per_side"], part["damping"]
        crossings.append(Curve(label, cycles, array(part["crossing"]), colour=colour))
        shares.append(Curve("", cycles, _cumulated(part["floor_share"]), colour=colour))
        dampings.append(Curve("", cycles, array(samplers[0]["factor"]), colour=colour))
        dampings.append(Curve("", cycles, array(samplers[-1]["factor"]), role="control", colour=colour))
    longest = max((part for *_, part in found), key=lambda part: float(part["cycles_per_side"][-1]))
    shares.append(Curve("", longest["cycles_per_side"], _cumulated(longest["count"]), role="target"))
    first, last = longest["damping"][0], longest["damping"][-1]
    return crossing_figure(crossings, shares, dampings, sampler=_sampler(first), control=_sampler(last))


def _lenses(result: Result) -> list[tuple[int, str, Lens]]:
    return [(colour, one["label"], one["lens"]) for colour, one in enumerate(result["autoencoders"])
            if "crossing" in one.get("lens", {})]


def _bands(part: Lens) -> BandsOverTime:
    """The rings nearest to every octave, and the last: few enough to tell apart."""
    cycles, power = array(part["cycles_per_side"]), array(part["power"])
    octaves = 2.0 ** np.arange(0, np.log2(cycles[-1]))
    chosen = sorted({int(np.abs(np.log(cycles / octave)).argmin()) for octave in octaves} | {len(cycles) - 1})
    learnable, floor = (np.stack([array(row) for row in part[name]])[:, chosen] for name in ("learnable", "floor"))
    times = [float(time) for time in part["times"]]
    drowning = array(part["crossing"])[chosen].tolist()
    return BandsOverTime(times, cycles[chosen].tolist(), learnable / power[chosen], floor, drowning)


def _cumulated(shares: Sequence[float]) -> np.ndarray:
    total = np.cumsum(array(shares))
    return total / total[-1]


def _sampler(damping: Lens) -> str:
    return f"{damping['sampler']}, {damping['steps']} steps"
