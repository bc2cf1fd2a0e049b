"""Drift: does a transformer that was trained on the latents of the reference still fit a later autoencoder?

The transformer generates latents of the reference, y, which the later decoder must decode. x are the later autoencoder's latents
of the same images. Two questions, both answered on images that no map was fitted on (spectrum.md#drift):
- how much of the variance of y do x miss, as they are, after the best map of each channel, after the best map over channels?
- how well does the later decoder decode y, as they are and after the best maps of y to x?
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from smtool.config import Config
from smtool.diffusability.inputs.pairs import LatentPairs
from smtool.diffusability.inputs.subjects import Subject
from smtool.diffusability.sections.parts import (
    Chapter,
    Estimate,
    Finding,
    Matrix,
    Reason,
    Row,
    finding,
    measured,
    numbers,
    shown,
    shown_estimate,
)
from smtool.metrics.reconstruction import psnr
from smtool.networks.posterior import LatentStats
from smtool.report.tables import Table
from smtool.spectrum.drift import NUM_BANDS, AffineMap, PairMoments, Unexplained, fit_channels, fit_linear, unexplained
from smtool.spectrum.units import Units, mean_and_half_width

LARGEST_UNEXPLAINED = 0.05
"""Share of the variance of the reference's latents that the later latents may miss for the transformer to fit.

This limit and the next decide all verdicts of this section, which need both. They separate the fine-tunes of docs/results/heal.md
whose samples are as good from an old transformer as from a new one (at most 2.7 % and 1.4 dB) from the others (at least 13 % and
5.3 dB)."""
LARGEST_LOSS = 2.0
"""dB of PSNR that the later decoder may lose on the reference's latents, beside its own latents."""
SAME_LATENTS = 1e-6
"""Unexplained share up to which latents are the same: rounding of weights in float16 gives less."""
LARGEST_PSNR = 60.0
"""dB. Above it, two images differ by less than 8 bits resolve."""
CHANNELS_IN_TABLE = 32
DECODINGS = 4
"""Of every image by the later decoder: its own latents, and those of the reference by three maps. The reference decodes once."""

Fit = Literal["same", "drop-in", "channels", "linear", "anew"]
_NAMES = {"as_is": "as they are", "channels": "map per channel", "linear": "map over channels"}


class Mapped(Config):
    """The later latents x after one map, beside the reference's latents y, on images that no map was fitted on.

    unexplained: share of the variance of y that the map of x misses, each channel in units of the reference's normalization.
    bands: the same in bands of equal width from 0 to the Nyquist frequency, lowest first, with half-widths; channels: (C,);
    cells: (bands, C). psnr: in dB, of the later decoder's images of y, mapped to x; loss: below its PSNR on its own latents. None
    without decodings.
    """

    unexplained: Estimate
    bands: Row
    bands_half_width: Row
    channels: Row
    cells: Matrix
    psnr: Estimate | None = None
    loss: Estimate | None = None


class Drift(Config):
    """How far latents are from those of the reference, by three maps.

    fitted, evaluated, decoded: numbers of images; decoded ones are among the evaluated. scale, shift: of the map per channel,
    scale * x + shift, for which the later decoder decodes best; `smtool export --align` writes an encoder with it.
    psnr_reference, psnr_own: of the reference and of the later autoencoder on their own latents, in dB. fit: the judgement by the
    two limits.
    """

    reference: str
    fitted: int
    evaluated: int
    decoded: int
    as_is: Mapped
    channels: Mapped
    linear: Mapped
    scale: Row
    shift: Row
    psnr_reference: Estimate | None = None
    psnr_own: Estimate | None = None
    fit: Fit
    largest_unexplained: float
    largest_loss: float

    @property
    def maps(self) -> dict[str, Mapped]:
        return {"as_is": self.as_is, "channels": self.channels, "linear": self.linear}


@torch.no_grad()
def measure(pairs: LatentPairs | Reason, images: Tensor, stats: LatentStats, *, decoded: int) -> Drift | Reason:
    """images: the first images of the pass (N, C, H, W); stats: of the reference; decoded: largest number of images to decode."""
    if isinstance(pairs, Reason):
        return pairs
    if pairs.fit is None or not pairs.held_out:
        name = pairs.units.name
        return Reason(reason=f"not measured: it needs at least two {name}s, one to fit maps on and one to evaluate them on")
    weights = (1 / stats.std.double().cpu().square()).expand(pairs.fit.channels)
    shares = {name: _shares(*unexplained(pairs.held_out, one, weights)) for name, one in _maps(pairs.fit).items()}
    quality = _decode(pairs, pairs.fit, images, decoded)
    maps = {name: share.model_copy(update=_of_map(quality, name)) for name, share in shares.items()}
    to_later = fit_channels(pairs.fit.swapped())
    scale = 1 / to_later.scale
    return Drift(
        reference=pairs.reference.label, fitted=pairs.fit.num_images,
        evaluated=sum(one.num_images for one in pairs.held_out), decoded=quality.images,
        as_is=maps["as_is"], channels=maps["channels"], linear=maps["linear"],
        scale=numbers(scale), shift=numbers(-scale * to_later.shift),
        psnr_reference=quality.reference, psnr_own=quality.own,
        fit=judged(maps), largest_unexplained=LARGEST_UNEXPLAINED, largest_loss=LARGEST_LOSS,
    )


def _maps(pair: PairMoments) -> dict[str, AffineMap]:
    """Maps of the later latents to the earlier ones, by name of a field of Drift."""
    return {"as_is": AffineMap.identity(pair.channels), "channels": fit_channels(pair), "linear": fit_linear(pair)}


def _of_map(quality: "_Quality", name: str) -> dict[str, Estimate]:
    return dict(zip(("psnr", "loss"), quality.mapped.get(name, ()), strict=False))


def judged(maps: Mapping[str, Mapped]) -> Fit:
    """The first map that keeps both limits; without decodings, the limit of the share alone. maps: by field of Drift."""
    if (maps["as_is"].unexplained.value or 0.0) <= SAME_LATENTS:
        return "same"
    fits: dict[str, Fit] = {"as_is": "drop-in", "channels": "channels", "linear": "linear"}
    return next((fits[name] for name, one in maps.items() if _keeps_limits(one)), "anew")


def _keeps_limits(one: Mapped) -> bool:
    missed, loss = one.unexplained.value, None if one.loss is None else one.loss.value
    return missed is not None and missed <= LARGEST_UNEXPLAINED and (loss is None or loss <= LARGEST_LOSS)


def _shares(value: Unexplained, half_width: Unexplained) -> Mapped:
    return Mapped(
        unexplained=Estimate(value=value.total.item(), half_width=half_width.total.item()),
        bands=numbers(value.bands), bands_half_width=numbers(half_width.bands), channels=numbers(value.channels),
        cells=[numbers(row) for row in value.cells],
    )


@dataclass(frozen=True)
class _Quality:
    """PSNR of both decoders. images: number of decoded images; reference, own: of both on their own latents; mapped: by name of a
    map, of the later decoder on the reference's latents, and what it loses."""

    images: int = 0
    reference: Estimate | None = None
    own: Estimate | None = None
    mapped: Mapping[str, tuple[Estimate, Estimate]] = field(default_factory=dict)


def _decode(pairs: LatentPairs, fit: PairMoments, images: Tensor, most: int) -> _Quality:
    """Decode the first held-out images. images: the first images of the pass."""
    later, places = pairs.other, pairs.kept_places[:most]
    if not later.codec.can_decode or not places:
        return _Quality()
    y, x = pairs.kept(len(places))
    targets, units = images[places], Units(pairs.units.name, [pairs.units.groups[place] for place in places])

    def quality(subject: Subject, latents: Tensor) -> Tensor:
        decoded = subject.decode_all(latents).float().clamp(-1, 1)
        return psnr(decoded, targets).clamp(max=LARGEST_PSNR).cpu().double()

    def estimate(values: Tensor) -> Estimate:
        mean, half_width = mean_and_half_width(units.collapse(values[:, None]))
        return Estimate(value=mean.item(), half_width=half_width.item())

    own = quality(later, x)
    decoded = {name: quality(later, one(y)) for name, one in _maps(fit.swapped()).items()}
    reference = estimate(quality(pairs.reference, y)) if pairs.reference.codec.can_decode else None
    losses = {name: (estimate(one), estimate(own - one)) for name, one in decoded.items()}
    return _Quality(len(places), reference, estimate(own), losses)


def findings(drift: Drift | Reason | None) -> list[Finding]:
    """The judgement in words. Nothing for the reference itself, or where latents cannot be compared."""
    if drift is None or isinstance(drift, Reason):
        return []
    values = {f"unexplained_{name}": one.unexplained.value for name, one in drift.maps.items()}
    values |= {f"loss_{name}": one.loss.value for name, one in drift.maps.items() if one.loss is not None}
    return [finding("drift", "good" if drift.fit in ("same", "drop-in") else "note", _sentence(drift), **values)]


def _sentence(drift: Drift) -> str:
    transformers = f"transformers trained on the latents of {drift.reference}"
    as_is = _said(drift.as_is)
    if drift.fit == "same":
        return f"Drop-in for {transformers}: the latents are the same."
    if drift.fit == "drop-in":
        return f"Drop-in for {transformers}: {as_is}."
    if drift.fit == "anew":
        best = min(drift.maps.values(), key=lambda one: math.inf if one.unexplained.value is None else one.unexplained.value)
        return f"A transformer must be trained anew: {transformers} do not fit ({as_is}; after the best map, {_said(best)})."
    within = f"after it, {_said(drift.maps[drift.fit])}; without it, {as_is}"
    if drift.fit == "channels":
        return (
            f"It fits {transformers} after this affine map of each channel, which `smtool export --align` folds into the "
            f"weights: {within}."
        )
    return (
        f"It fits {transformers} only after an affine map over channels, which `smtool export --align` does not fold into "
        f"weights, because a posterior of independent channels would not remain one: {within}."
    )


def _said(one: Mapped) -> str:
    loss = "" if one.loss is None else f", and its decoder loses {shown(one.loss.value)} dB on them"
    return f"it misses {_percent(one.unexplained.value)} of their variance{loss}"


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return "0 %" if share <= SAME_LATENTS else f"{100 * share:.2g} %" if share < 1 else f"{100 * share:.0f} %"


def table(parts: Mapping[str, Drift | Reason]) -> Table | None:
    """One row for each autoencoder and map; the note gives the reasons of the others. None without parts."""
    if not parts:
        return None
    found, rows, notes = measured(parts), [], [_NOTE]
    for _, label, one in found:
        for name, mapped in one.maps.items():
            bands = [_percent(share) for share in mapped.bands]
            bands += ["-"] * (NUM_BANDS - len(bands))
            decoded = ["-" if one is None else shown_estimate(one, 2) for one in (mapped.psnr, mapped.loss)]
            rows.append((label if name == "as_is" else "", _NAMES[name], _share(mapped.unexplained), *bands, *decoded))
    for _, label, one in found:
        own = {label: one.psnr_own, one.reference: one.psnr_reference}
        if said := [f"{name} {shown_estimate(quality, 2)}" for name, quality in own.items() if quality is not None]:
            notes.append(f"PSNR on own latents, {one.decoded} images: {', '.join(said)}")
        notes.append(f"{label}: maps fitted on {one.fitted} images, evaluated on {one.evaluated} others")
    reasons = [(label, part.reason) for label, part in parts.items() if isinstance(part, Reason)]
    if not found:
        return Table("", ("DRIFT", ""), tuple(reasons))
    notes += [f"{label}: {reason}" for label, reason in reasons]
    columns = ("DRIFT", "latents", "missed", *(f"band {index}" for index in range(1, NUM_BANDS + 1)), "PSNR", "loss")
    return Table("", columns, tuple(rows), "\n".join(notes))


_NOTE = (
    "missed: share of the variance of the reference's posterior means that these latents do not explain, as they are and after "
    "the best affine map of each channel or over all channels; bands: of equal width from 0 to Nyquist, lowest first; PSNR: of "
    "this decoder on the reference's latents, mapped in the same way, in dB; loss: how much better it decodes its own latents"
)


def channel_table(parts: Mapping[str, Drift | Reason]) -> Table | None:
    """Map and shares of each channel, of autoencoders with at most CHANNELS_IN_TABLE channels; None without any."""
    rows = []
    for _, label, one in measured(parts):
        for channel in range(len(one.scale) if len(one.scale) <= CHANNELS_IN_TABLE else 0):
            scale, shift = (shown(values[channel], 3) for values in (one.scale, one.shift))
            shares = (_percent(mapped.channels[channel]) for mapped in one.maps.values())
            rows.append((label if channel == 0 else "", str(channel), scale, shift, *shares))
    columns = ("DRIFT", "channel", "scale", "shift", *(f"missed, {name}" for name in _NAMES.values()))
    note = "scale, shift: of the map per channel that `smtool export --align` folds into the weights"
    return Table("", columns, tuple(rows), note) if rows else None


def chapter(parts: Mapping[str, Drift | Reason]) -> Chapter:
    said = (
        "A transformer generates latents of the autoencoder that it was trained on. It keeps fitting a later autoencoder if the "
        "later decoder decodes these latents, and if the later latents hold the same.",
    )
    return Chapter("Drift: does a transformer of the first autoencoder still fit?", (*said, table(parts), channel_table(parts)))


def _share(found: Estimate) -> str:
    if found.value is None or found.value <= SAME_LATENTS or found.half_width is None:
        return _percent(found.value)
    return f"{100 * found.value:.2f} ± {100 * found.half_width:.2f} %"
