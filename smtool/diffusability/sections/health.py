"""Health: channels, rank, capacity, grid artefacts, errors at edges, shift errors and the range of values in fp16.

The limits of the verdict lie between values measured on hand-made control autoencoders (spectrum.md#health).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from smtool.config import Config
from smtool.diffusability.inputs.accumulators import LatentMoments
from smtool.diffusability.inputs.subjects import Subject
from smtool.diffusability.sections.parts import (
    NOT_MEASURED,
    Chapter,
    Finding,
    Number,
    Plot,
    Reason,
    Rounded,
    Row,
    Tone,
    Values,
    array,
    finding,
    numbers,
    or_reason,
    shown,
)
from smtool.inference.reconstruct import images_at_once
from smtool.networks.activations import LargestActivation
from smtool.networks.tokenizer import Tokenizer
from smtool.report.plots import Curve
from smtool.report.plots.health import capacity_figure
from smtool.report.tables import Table
from smtool.spectrum import (
    DISTORTIONS,
    BandMoments,
    ChannelMoments,
    capacity_at,
    channel_capacity,
    dead_channels,
    edge_ratio,
    effective_rank,
    grid_artefacts,
    grid_statistics,
    latent_shift,
    shift_errors,
)
from smtool.spectrum import Capacity as BandCapacity

SHIFTED_IMAGES = 16
WATCHED_IMAGES = 4
LARGEST_FP16 = 65504.0
DRAWN_DISTORTION = 0.01
LOW_RANK = 0.5
"""Fraction of the channels. With half of the channels duplicated or dead, the effective rank is half their number."""
FULL_RANK = 0.75
"""White channels have full effective rank; below this fraction of the channels the tone is "note" instead of "good"."""
GRID_TEMPLATE = 0.03
"""Photographs have 0.009; with a periodic pattern of 1 % of their variance 0.072 to 0.075. This is halfway on a ratio scale."""
GRID_PHASE = 0.1
"""Chance gives 0.03 to 0.06, a plain trained autoencoder 0.14, bilinear upsampling 0.49, nearest upsampling 1."""
EDGE_RATIO = 2.1
"""Controls have 1.0 and two trained autoencoders 1.7; reflecting edges that they were trained to pad with zeros, these have 2.7
and 3.1. This is halfway on a ratio scale."""
SHIFT_RECONSTRUCTION = 0.05
"""An ideal crop has 0.003, a trained autoencoder 0.013, bilinear 0.016; nearest (0.14) and strided subsampling (0.61) fail."""
SHIFT_CELLS = 0.05
"""Convolutions have 0; the control that stretches frequencies has 1.17."""
SHIFT_LATENT = 0.2
"""An ideal crop has 0.008 and bilinear 0.06; a trained autoencoder (0.52) and space-to-depth (0.55) alias."""


class Channel(Config):
    """One channel of the raw posterior means. posterior_std: root mean square of the posterior noise, null without noise."""

    mean: Rounded
    std: Rounded
    dead: bool
    posterior_std: Rounded


class EffectiveRank(Config):
    """Effective rank of the channels, as exp(entropy) and as participation ratio of the eigenvalues, of the covariance and of the
    correlations."""

    entropy: float
    participation: float
    entropy_correlation: float
    participation_correlation: float
    num_channels: int
    num_positions: int


class Bits(Config):
    """Capacity of one image's latents. well_sampled: by band; elsewhere there are too few images, and the bits are too low."""

    bits_per_image: float
    bits_per_channel: Row
    bits_per_band: Row
    well_sampled: list[bool]


class Capacity(Bits):
    """Bits at one distortion: the fraction of the variance that may be lost."""

    distortion: float


class GridReading(Config):
    """A grid statistic, between 0 and 1, of reconstructions and of inputs; excess = reconstruction - input."""

    reconstruction: Number
    input: Number
    excess: Number


class Grid(Config):
    """Grid artefacts at a period in pixels, the downsampling factor (spectrum.md#health)."""

    period: int
    images: int
    template: GridReading
    phase: GridReading


class Edges(Config):
    """Squared error of reconstructions in the outermost pixels over that of the interior, median over images."""

    images: int
    ratio: float


class Shift(Config):
    """Shift-equivariance errors, as fractions of the variance; null where they need a decoder that is missing."""

    images: int
    reconstruction: Number
    whole_cell: Number
    latent: Number


class Fp16(Config):
    """Largest magnitudes observed in float32; layer: where; reason: why no layer was watched."""

    largest_latent: Number
    largest_activation: Number = None
    layer: str | None = None
    overflows: bool | None = None
    reason: str | None = None


class Health(Config):
    channels: list[Channel]
    effective_rank: EffectiveRank | Reason
    capacity: list[Capacity] | Reason
    channel_capacity: Bits | Reason
    grid: Grid | Reason
    edges: Edges | Reason = Reason(reason="measured by a version without this check")
    shift: Shift | Reason
    fp16: Fp16


@torch.no_grad()
def measure(
    subject: Subject, images: Tensor, moments: LatentMoments, reconstructions: Tensor | None, *, with_shifts: bool = True
) -> Health:
    """All checks of one autoencoder.

    moments: of all images of the pass. images (N, C, H, W) and reconstructions: the first images of the pass; reconstructions is
    None without. with_shifts: whether shift errors and the largest activation are measured. The shift errors encode the first 16
    images twice and decode them three times; hooks record the largest activation during the first four of them.
    """
    noise = None if subject.codec.deterministic else moments.noise
    activations = LargestActivation()
    return Health(
        channels=_channels(moments.channels, noise), effective_rank=_rank(moments.channels),
        capacity=_capacity(moments.bands), channel_capacity=_channel_capacity(moments.bands, noise),
        grid=_grid(images, reconstructions, subject.codec),
        edges=_edges(images, reconstructions, subject.codec),
        shift=_shifts(subject, images[:SHIFTED_IMAGES], activations) if with_shifts else NOT_MEASURED,
        fp16=fp16_of(moments.largest, activations) if with_shifts else Fp16(
            largest_latent=moments.largest, reason=NOT_MEASURED.reason
        ),
    )


def _channels(moments: ChannelMoments, noise: Tensor | None) -> list[Channel]:
    noises = [None] * len(moments.mean) if noise is None else numbers(noise.sqrt())
    columns = (numbers(moments.mean), numbers(moments.std), dead_channels(moments).tolist(), noises)
    return [Channel(mean=mean, std=std, dead=dead, posterior_std=noise) for mean, std, dead, noise in zip(*columns, strict=True)]


@or_reason
def _rank(moments: ChannelMoments) -> EffectiveRank:
    return EffectiveRank.model_validate(effective_rank(moments), from_attributes=True)


@or_reason
def _capacity(moments: BandMoments) -> list[Capacity]:
    return [Capacity(**dict(_bits(capacity_at(moments, distortion), moments)), distortion=distortion)
            for distortion in DISTORTIONS]


@or_reason
def _channel_capacity(moments: BandMoments, noise: Tensor | None) -> Bits:
    if noise is None:
        raise ValueError("its encoder adds no noise")
    return _bits(channel_capacity(moments, noise), moments)


def _bits(found: BandCapacity, moments: BandMoments) -> Bits:
    return Bits(
        bits_per_image=found.bits_per_image, bits_per_channel=numbers(found.bits_per_channel),
        bits_per_band=numbers(found.bits_per_band), well_sampled=moments.well_sampled.tolist(),
    )


@or_reason
def _grid(images: Tensor, reconstructions: Tensor | None, codec: Tokenizer) -> Grid:
    if reconstructions is None:
        raise ValueError(NOT_MEASURED.reason if codec.can_decode else "it has no decoder")
    period = codec.downsample
    found = grid_artefacts(grid_statistics(reconstructions, period), grid_statistics(images, period))
    template, phase = (GridReading.model_validate(one, from_attributes=True) for one in (found.template, found.phase))
    return Grid(period=period, images=len(images), template=template, phase=phase)


@or_reason
def _edges(images: Tensor, reconstructions: Tensor | None, codec: Tokenizer) -> Edges:
    if reconstructions is None:
        raise ValueError(NOT_MEASURED.reason if codec.can_decode else "it has no decoder")
    return Edges(images=len(images), ratio=edge_ratio(images, reconstructions, codec.downsample))


@or_reason
def _shifts(subject: Subject, images: Tensor, activations: LargestActivation) -> Shift:
    """Shift errors. The activations are recorded for the first images."""
    codec, batch = subject.codec, images_at_once(images.shape[-2], images.shape[-1])
    encode: Callable[[Tensor], Tensor] = lambda x: subject.encode(x).mode()      # noqa: E731
    if not codec.can_decode:
        with activations.watching(codec.network):
            error = latent_shift(encode, images, downsample=codec.downsample, batch=batch).value
        return Shift(images=len(images), reconstruction=None, whole_cell=None, latent=error)
    errors_of = partial(shift_errors, encode, subject.decode, downsample=codec.downsample, batch=batch)
    watched = min(batch, WATCHED_IMAGES)
    with activations.watching(codec.network):
        found = errors_of(images[:watched])
    if len(images) > watched:
        found = found + errors_of(images[watched:])
    return Shift(images=len(images), reconstruction=found.reconstruction, whole_cell=found.whole_cell, latent=found.latent)


def fp16_of(largest_latent: float, activations: LargestActivation) -> Fp16:
    """Whether the values observed in float32 fit half precision."""
    if not activations.by_layer:
        return Fp16(largest_latent=largest_latent, reason="no layer could be watched")
    value, layer = activations.largest()
    overflows = not max(value, largest_latent) <= LARGEST_FP16
    return Fp16(largest_latent=largest_latent, largest_activation=value, layer=layer, overflows=overflows)


def findings(health: Health) -> list[Finding]:
    """One finding per check that could be made."""
    found = [channels_finding(health.channels)]
    if isinstance(health.effective_rank, EffectiveRank):
        found.append(rank_finding(health.effective_rank))
    if isinstance(health.grid, Grid):
        found.append(grid_finding(health.grid))
    if isinstance(health.edges, Edges):
        found.append(edges_finding(health.edges))
    if isinstance(health.shift, Shift):
        found.append(shift_finding(health.shift))
    if health.fp16.layer is not None:
        found.append(fp16_finding(health.fp16))
    return found


def channels_finding(channels: Sequence[Channel]) -> Finding:
    dead = [index + 1 for index, channel in enumerate(channels) if channel.dead]
    listed = ", ".join(map(str, dead[:12])) + (" ..." if len(dead) > 12 else "")
    said = f"{len(dead)} of {len(channels)} channels are dead (almost constant, nothing to learn): {listed}."
    if not dead:
        said = f"None of the {len(channels)} channels is dead (almost constant)."
    return finding("channels", "warn" if dead else "good", said, dead=float(len(dead)), channels=float(len(channels)))


def rank_finding(rank: EffectiveRank) -> Finding:
    """Finding on the effective rank, by covariance and by correlation: a channel of large variance hides the others in the
    covariance, and dead channels do not show in the correlations."""
    channels, entropy, correlation = rank.num_channels, rank.entropy, rank.entropy_correlation
    is_low = entropy <= LOW_RANK * channels
    said = f"The effective rank of {channels} channels is {entropy:.1f}, or {correlation:.1f} at equal channel variance"
    if is_low:
        loud = correlation > LOW_RANK * channels
        said += (": a few channels have much larger variance than the rest, or some are dead" if loud else
                 ": channels are redundant, so a diffusion model learns the same content several times")
    tone: Tone = "warn" if is_low else "good" if entropy > FULL_RANK * channels else "note"
    return finding("rank", tone, f"{said}.", entropy=entropy, entropy_correlation=correlation, channels=float(channels))


def grid_finding(grid: Grid) -> Finding:
    """Finding on grid artefacts, as the excess over the inputs, because JPEG gives photographs a grid too."""
    template, phase = grid.template.excess or 0.0, grid.phase.excess or 0.0
    is_seen = template > GRID_TEMPLATE or phase > GRID_PHASE
    said = "Grid artefacts in reconstructions" if is_seen else "No grid artefacts in reconstructions"
    beyond = f"template fraction {template:+z.3f}, phase contrast {phase:+z.2f}"
    meaning = "; generated images will show them too" if is_seen else ""
    sentence = f"{said} at a period of {grid.period} px: {beyond} relative to the inputs{meaning}."
    return finding("grid", "warn" if is_seen else "good", sentence, template_excess=template, phase_excess=phase)


def edges_finding(edges: Edges) -> Finding:
    """Finding on the error at the edges of images, where padding that does not fit the weights shows."""
    is_wrong = edges.ratio > EDGE_RATIO
    said = f"The error of reconstructions in the outermost pixels is {edges.ratio:.1f} times that of the interior"
    hint = (
        ": its convolutions may pad in another way than they were trained to; compare with ,padding=reflect or ,padding=zeros "
        "behind its name" if is_wrong else ""
    )
    return finding("edges", "warn" if is_wrong else "good", f"{said}{hint}.", ratio=edges.ratio)


def shift_finding(shift: Shift) -> Finding:
    """Finding on the three shift errors. All three are needed: space-to-depth is perfect by the first alone."""
    checks = (
        ("reconstruction", shift.reconstruction, SHIFT_RECONSTRUCTION,
         "reconstructions change when the image shifts by part of a cell"),
        ("whole_cell", shift.whole_cell, SHIFT_CELLS, "decoded images do not follow when latents shift by one cell"),
        ("latent", shift.latent, SHIFT_LATENT, "latents alias when the image shifts by part of a cell"),
    )
    errors = {name: error for name, error, *_ in checks if error is not None}
    broken = [f"{words} ({error:.2f} of the variance)" for _, error, limit, words in checks if (error or 0.0) > limit]
    if broken:
        said = f"Not shift-equivariant: {'; '.join(broken)}. The same content is coded differently at other positions."
        return finding("shifts", "warn", said, **errors)
    listed = ", ".join(f"{name.replace('_', ' ')} {error:.3f}" for name, error in errors.items())
    return finding("shifts", "good", f"Shift-equivariant: errors as fractions of the variance are {listed}.", **errors)


def fp16_finding(fp16: Fp16) -> Finding:
    largest = fp16.largest_activation
    if fp16.overflows:
        reached = "is not finite even in fp32" if largest is None else f"reaches {largest:.3g}, more than 65504,"
        said = f"Overflows fp16: an activation {reached} at {fp16.layer}; run it in bf16 or fp32."
    else:
        said = f"Fits fp16: the largest activation is {largest:.3g}, at {fp16.layer}; the limit is 65504."
    return finding("fp16", "warn" if fp16.overflows else "good", said, largest_activation=largest)


def cells(health: Health) -> tuple[str, ...]:
    """Cells with rank, grid and shift errors, for the table of decoders."""
    rank = shown(None if isinstance(health.effective_rank, Reason) else health.effective_rank.entropy, 1)
    grid = shown(None if isinstance(health.grid, Reason) else health.grid.phase.excess)
    return f"{rank}/{len(health.channels)}", grid, *_errors(health, 2)


def chapter(parts: Mapping[str, Health]) -> Chapter:
    return Chapter("Health", (table(parts), plot(parts)))


def table(parts: Mapping[str, Health]) -> Table | None:
    """One row per check and one column per autoencoder."""
    names = (
        "dead channels", "std of channels", "effective rank", *(f"bits at {100 * d:g} % loss" for d in DISTORTIONS),
        "bits above posterior noise", "grid excess", "error at edges", "shift error, reconstruction", "shift error, whole cells",
        "shift error, latent", "fp16",
    )
    rows = tuple(zip(names, *map(_checks, parts.values()), strict=True))
    note = (
        "effective rank: of the covariance, and of the correlations in brackets; grid excess: template fraction and phase "
        "contrast of reconstructions minus those of inputs; error at edges: squared, of the outermost pixels; shift errors: "
        "fractions of the variance of image or latent (ideal: 0)"
    )
    return Table("", ("check", *parts), rows, note) if parts else None


def _checks(health: Health) -> list[str]:
    stds = [channel.std for channel in health.channels if channel.std is not None]
    rank, own, grid = health.effective_rank, health.channel_capacity, health.grid
    bits = {one.distortion: f"{one.bits_per_image:,.0f}" for one in _capacities(health)}
    return [
        f"{sum(channel.dead for channel in health.channels)} of {len(health.channels)}",
        f"{min(stds):.3g} to {max(stds):.3g}" if stds else "-",
        rank.reason if isinstance(rank, Reason) else
        f"{rank.entropy:.1f} ({rank.entropy_correlation:.1f}) of {rank.num_channels}",
        *(bits.get(distortion, "-") for distortion in DISTORTIONS),
        own.reason if isinstance(own, Reason) else f"{own.bits_per_image:,.0f}",
        grid.reason if isinstance(grid, Reason) else
        f"{shown(grid.template.excess, 3)}, {shown(grid.phase.excess)} (period {grid.period} px)",
        health.edges.reason if isinstance(health.edges, Reason) else f"{health.edges.ratio:.2f} x interior",
        *_errors(health, 3),
        _range(health.fp16),
    ]


def _capacities(health: Health) -> list[Capacity]:
    return [] if isinstance(health.capacity, Reason) else health.capacity


def _errors(health: Health, digits: int) -> tuple[str, str, str]:
    if isinstance(health.shift, Reason):
        return "-", "-", "-"
    reconstruction, cells, latent = health.shift.reconstruction, health.shift.whole_cell, health.shift.latent
    return shown(reconstruction, digits), shown(cells, digits), shown(latent, digits)


def _range(fp16: Fp16) -> str:
    if fp16.overflows is None:
        return fp16.reason or "-"
    largest = "not finite" if fp16.largest_activation is None else f"{fp16.largest_activation:.3g}"
    return f"{'overflows' if fp16.overflows else 'fits'}: {largest} at {fp16.layer}"


def plot(parts: Mapping[str, Health]) -> Plot | None:
    """Plot of the bits by band and by channel at DRAWN_DISTORTION; None without capacities."""
    bands, channels = [], []
    for colour, (label, health) in enumerate(parts.items()):
        for one in _capacities(health):
            if one.distortion == DRAWN_DISTORTION:
                richest = sorted((bits or 0.0 for bits in one.bits_per_channel), reverse=True)
                bands.append(_counted(f"{label}: {one.bits_per_image:,.0f} bits", one.bits_per_band, colour))
                channels.append(_counted("", richest, colour))
    return None if not bands else Plot(
        "capacity", lambda: capacity_figure(bands, channels, distortion=DRAWN_DISTORTION),
        "Bits of one image by latent band and by channel.",
        "Distribution of the bits, if latents were Gaussian and 1 % of their variance may be lost. Bits in the highest bands are "
        "detail that a diffusion model generates last; a channel without bits is dead or a copy of others.",
    )


def _counted(label: str, values: Values, colour: int) -> Curve:
    return Curve(label, range(1, len(values) + 1), array(values), colour=colour)
