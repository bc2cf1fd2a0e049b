"""The parts of spectrum.json that hold power spectra. Numbers are null where they are not finite."""

from typing import Literal

from smtool.config import Section

Number = float | None
Row = list[Number]
Table = list[Row]


class Reason(Section):
    """Why a part is missing."""

    reason: str


class Curve(Section):
    """A distribution over the 16 REFERENCE bins, with its 95 % band."""

    share: Row
    low: Row
    high: Row


class Estimate(Section):
    """A number with the half-width of its 95 % interval; null: too few units to say."""

    value: Number
    half_width: Number


class Slope(Section):
    """Exponent a of power ~ f^-a, calibrated; fit_range in cycles per pixel of the grid."""

    exponent: float
    half_width: Number
    steeper_than_4_5: bool
    fit_range: tuple[float, float]
    rings: int
    residual_db: float
    quantiles_5_50_95: list[float] | None


class Delta(Section):
    """How much flatter latents are than their images. half_width = half_width_jackknife + allowance."""

    value: float
    half_width: Number
    half_width_jackknife: Number
    allowance: float
    residual_db: float
    is_power_law: bool
    fit_range: tuple[float, float]
    rings: int


class Decibel(Section):
    value: float


class Target(Section):
    """Images flattened by f^delta, and how far latents lie from it at the gain that brings them nearest."""

    delta: float
    power: Row
    gain_db: Number
    residual_db: Row
    half_width: Row
    divergence_db: Decibel | Reason


class Knee(Section):
    """Where one power law hands over to another, in cycles per image side; is_bent: the change of slope excludes 0."""

    cycles_per_side: float
    interval: list[Number]
    exponent_below: float
    exponent_above: float
    slope_change: float
    half_width: Number
    is_bent: bool


class ChannelPowers(Section):
    """Power of every normalized channel, one row of rings for each."""

    power: Table


class ChannelDeltas(Section):
    values: list[float]


class Powers(Section):
    """Set-averaged PHYSICAL power by ring with its 95 % band; frequency in cycles per pixel of the grid `size`."""

    size: tuple[int, int]
    frequency: Row
    cycles_per_side: Row
    cells: list[int]
    power: Row
    low: Row
    high: Row
    slope: Slope | Reason


class PhysicalReading(Powers):
    """Latents under one posterior and scale. The headline alone has fitted_target, knee and channels."""

    posterior: Literal["sample", "mean", "deterministic"]
    latents: Literal["normalized", "raw"]
    headline: bool
    delta: Delta | Reason
    target: Target
    fitted_target: Target | Reason | None = None
    knee: Knee | Reason | None = None
    channels: ChannelPowers | None = None
    channel_deltas: ChannelDeltas | Reason | None = None


class Divergence(Section):
    """Mean KL in nats, without DC, of the images flattened by delta from the latents."""

    value: float
    half_width: Number
    delta: float


class ReferenceDelta(Section):
    value: Number
    reason: str | None = None


class Gains(Section):
    """raw: as released; match: with the latents' power matched to the target's."""

    raw: Divergence
    match: Divergence


class ReferenceDeltas(Section):
    raw: ReferenceDelta
    match: ReferenceDelta


class ReferenceReading(Section):
    """Latents under one posterior and scale, in the released code's recipe. curve: raw readings only."""

    posterior: Literal["sample", "mean", "deterministic"]
    latents: Literal["normalized", "raw"]
    headline: bool
    divergence: Gains
    delta: ReferenceDeltas
    curve: Curve | None = None


class ReferenceImages(Section):
    """Images at a latent's size, and flattened by delta."""

    size: tuple[int, int]
    curve: Curve
    target: Curve
    delta: float


class Images(Section):
    physical: Powers | None = None
    reference: list[ReferenceImages] | None = None


class Normalization(Section):
    """What divided raw latents: per channel, or one number for all."""

    source: str
    kind: Literal["channel", "scalar"]
    mean: list[float]
    std: list[float]
    count: int
    data: str
