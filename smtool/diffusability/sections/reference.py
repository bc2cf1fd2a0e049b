"""REFERENCE spectra, computed as in the paper's released code: fractions of log1p power in 16 bins, KL divergences and deltas."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from smtool.config import Config
from smtool.diffusability.inputs.accumulators import ImageRings, LatentRings
from smtool.diffusability.inputs.subjects import Size
from smtool.diffusability.sections.flattening import wrapped
from smtool.diffusability.sections.parts import (
    Chapter,
    Finding,
    Number,
    Plot,
    Reading,
    Row,
    array,
    finding,
    headline,
    named,
    numbers,
    shown,
)
from smtool.report.plots import Curve, Role
from smtool.report.plots.power import reference_figure
from smtool.report.tables import Table, interval
from smtool.spectrum import (
    REFERENCE,
    Spectrum,
    fit_reference_delta,
    matched_gain,
    reference_divergence,
    spectral_distribution,
)
from smtool.spectrum.units import Units, averaged, log_band, mean_and_half_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOUDNESS_RATIO = 2.0
"""A KL as released of more than twice the power-matched KL is mostly due to the latents' scale, not to their slope."""
BINS = range(1, 17)
Gain = Literal["raw", "match"]


class Curves(Config):
    """A distribution over the 16 bins, which sums to 1, with its 95 % band from low to high."""

    share: Row
    low: Row
    high: Row


class Divergence(Config):
    """Mean KL divergence in nats, without DC, of the images flattened by delta from the latents."""

    value: float
    half_width: Number
    delta: float


class ReferenceDelta(Config):
    """The delta of least KL; null with the reason where there is no minimum in [-1, 3]."""

    value: Number
    reason: str | None = None


class Gains(Config):
    """KL divergences. raw: as released; match: with the latents' power matched to the target's."""

    raw: Divergence
    match: Divergence


class ReferenceDeltas(Config):
    """Fitted deltas. raw: with the KL as released; match: with the latents' power matched to the target's."""

    raw: ReferenceDelta
    match: ReferenceDelta


class ReferenceReading(Reading):
    """Latents of one posterior kind and scale. curve: for raw readings only; the headline is sampled and raw, as released."""

    divergence: Gains
    delta: ReferenceDeltas
    curve: Curves | None = None


class ReferenceImages(Config):
    """Curves of images at a latent's size (curve), and of the images flattened by delta (target)."""

    size: Size
    curve: Curves
    target: Curves
    delta: float


class Published(Config):
    """A published curve of the paper's figures."""

    name: str
    label: str
    share: list[float]


Latents = Mapping[str, Sequence[ReferenceReading]]


def measure_images(images: ImageRings, size: Size, units: Units, *, delta: float) -> ReferenceImages:
    power = images.at(REFERENCE.curve, size).power
    return ReferenceImages(size=size, curve=_curve(power, units), target=_curve(power, units, delta=delta), delta=delta)


def measure(
    images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units, *, delta: float
) -> list[ReferenceReading]:
    """One reading per posterior kind and scale, the headline first. Arguments as in `physical.measure`."""
    at_size, channels = images.at(REFERENCE.loss, size), latents.subject.codec.latent_channels
    readings = []
    for posterior, scale in sorted(latents.readings(), key=lambda reading: reading != (latents.headline, "raw")):
        spectrum = latents.table(posterior, REFERENCE.loss, scale).spectrum(std if scale == "normalized" else None)
        curve = {} if scale == "normalized" else {
            "curve": _curve(latents.table(posterior, REFERENCE.curve).spectrum().power, units)
        }
        gain = matched_gain(at_size.power, spectrum.power, spectrum.count, delta=delta)
        raw, match = (_divergence(at_size, spectrum, units, delta=delta, gain=factor) for factor in (1.0, gain))
        readings.append(ReferenceReading(
            posterior=posterior, latents=scale, headline=(posterior, scale) == (latents.headline, "raw"),
            divergence=Gains(raw=raw, match=match),
            delta=ReferenceDeltas(
                raw=_delta(at_size, spectrum, channels, gain="raw"), match=_delta(at_size, spectrum, channels, gain="match")
            ),
            **curve,
        ))
    return readings


def _curve(power: Tensor, units: Units, *, delta: float = 0.0) -> Curves:
    mean, half_width = mean_and_half_width(units.collapse(spectral_distribution(power, REFERENCE.curve, delta=delta)))
    low, high = log_band(mean, half_width)
    return Curves(share=numbers(mean), low=numbers(low), high=numbers(high))


def _divergence(images: Spectrum, latents: Spectrum, units: Units, *, delta: float, gain: float | Tensor) -> Divergence:
    """Mean KL divergence over units. gain: factor of the latents' power; 1 gives the released loss."""
    rows = reference_divergence(images.power, latents.power, REFERENCE.loss, delta=delta, gain=gain)
    mean, half_width = mean_and_half_width(units.collapse(rows[:, None]))
    return Divergence(value=mean.item(), half_width=half_width.item(), delta=delta)


def _delta(images: Spectrum, latents: Spectrum, channels: int, *, gain: Gain) -> ReferenceDelta:
    if channels == 1:      # with the KL of single images of one channel, the fit diverges: spectrum.md#delta
        images, latents = averaged(images), averaged(latents)
    found = fit_reference_delta(images, latents, gain=gain)
    return ReferenceDelta(value=found.value) if found.value is not None else ReferenceDelta(value=None, reason=found.message)


def findings(readings: Sequence[ReferenceReading]) -> list[Finding]:
    if not readings:
        return []
    raw, match = headline(readings).divergence.raw, headline(readings).divergence.match
    said = (f"The KL to the target in the paper's recipe (REFERENCE, raw latents) is {_kl(raw)} nats, or {_kl(match)} with "
            "matched power")
    if raw.value > LOUDNESS_RATIO * match.value:
        said += "; most of it comes from the scale of the latents, not from their slope"
    numbers = {"raw": raw.value, "raw_half_width": raw.half_width, "matched": match.value, "matched_half_width": match.half_width}
    return [finding("reference", "note", f"{said}. For comparison, white latents have 0.02 to 0.04.", **numbers)]


def table(latents: Latents, *, delta: float) -> Table:
    rows = [
        (*named(label, one), _kl(one.divergence.raw), _kl(one.divergence.match), *_best(one.delta))
        for label, readings in latents.items() for one in readings
    ]
    note = (
        f"KL: of the images flattened by delta {delta:g} from the latents, in nats, without DC; as released, and with the power "
        "of the latents matched; delta, matched: the delta of least KL, for each of the two (none: no minimum in [-1, 3])"
    )
    return Table("", ("REFERENCE", "latents", "KL", "KL matched", "delta", "matched"), tuple(rows), note)


def _kl(found: Divergence) -> str:
    return interval(found.value, found.half_width, digits=3)


def _best(deltas: ReferenceDeltas) -> tuple[str, str]:
    raw, match = ("none" if one.value is None else shown(one.value) for one in (deltas.raw, deltas.match))
    return raw, match


def chapter(
    images: Sequence[ReferenceImages], latents: Latents, sizes: Mapping[str, Size], published: Sequence[Published], rows: Table,
    *, note: str,
) -> Chapter:
    """The chapter on REFERENCE spectra. sizes: of each autoencoder's latents; rows: table from `table`; note: about the data."""
    drawn = partial(draw, images, latents, sizes, published, note=note)
    plot = Plot("reference", drawn, *(_WORDS if latents else _IMAGES_WORDS))
    return Chapter("Flattening in the paper's recipe (REFERENCE)", (plot, rows if latents else None))


_WORDS = (
    "Fractions of log1p power in 16 bins of images, flattened target, latents and published curves; below, latents over target.",
    "Computed as in the paper's figures; dotted: published curves, if requested (measured on other data: compare their shape "
    "with the target, not with your latents). Good: in the lower panel, a level line at 1. The bins are neither octaves nor "
    "physical frequencies, and latents of large variance look flatter here: compare the KL as released with the KL at matched "
    "power.",
)
_IMAGES_WORDS = (
    "Fractions of log1p power of the images in 16 bins.",
    "Computed as in the paper's figures; dotted: published curves, if requested (measured on other data).",
)


def draw(
    images: Sequence[ReferenceImages], latents: Latents, sizes: Mapping[str, Size], published: Sequence[Published], *, note: str
) -> "Figure":
    """Figure of the curves that the paper's figures show, with the published ones."""
    curves, ratios, targets = [], [], {}
    for part in images:
        height, width = part.size
        curves.append(_line(f"images at {height}x{width}", part.curve, role="image"))
        if latents:
            targets[part.size] = array(part.target.share)
            curves.append(Curve(f"target at {height}x{width}, delta {part.delta:g}", BINS, targets[part.size], role="target"))
    for colour, (label, readings) in enumerate(latents.items()):
        head = headline(readings)
        assert head.curve is not None
        kl, best = head.divergence, _best(head.delta)
        said = (f"{wrapped(label)}\nKL as released {_kl(kl.raw)}\npower-matched {_kl(kl.match)}\n"
                f"best delta: as released {best[0]}, matched {best[1]}")
        curves.append(_line(said, head.curve, colour=colour))
        ratios.append(Curve("", BINS, array(head.curve.share) / targets[sizes[label]], colour=colour))
    for colour, one in enumerate(published, start=len(latents)):
        curves.append(Curve(one.label, BINS, one.share, role="published", colour=colour))
    of_latents = "raw latents, KL without DC; " if latents else ""
    note = f"{note}\nrecipe of the released code: {of_latents}curves with DC and log1p"
    return reference_figure(curves, ratios, title="REFERENCE spectra, as in the paper's figures", note=note)


def _line(label: str, curve: Curves, *, role: Role = "latent", colour: int = 0) -> Curve:
    return Curve(label, BINS, array(curve.share), array(curve.low), array(curve.high), role=role, colour=colour)
