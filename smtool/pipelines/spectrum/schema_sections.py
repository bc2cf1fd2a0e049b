"""The parts of spectrum.json that hold the sections: transfer, low-pass curve, lens, direction, health, verdict."""

from typing import Literal

from smtool.config import Section
from smtool.pipelines.spectrum.schema_spectra import Estimate, Number, Reason, Row, Table


class Transfer(Section):
    """Band transfer of the decoder: kappa, share, above and down of the absolute reading; rows are latent bands.

    absolute: K x (K + 1), the last column above the latent's Nyquist; relative: K x K; unanswered rows are 0.
    """

    images: int
    bands: int
    eps: float
    kappa: Number
    share: Number
    above: Number
    down: Number
    relative_share: Number
    relative_kappa: Number
    absolute: Table
    relative: Table
    answered: list[bool]
    row_gain: Row
    self_check: Number
    is_linear: bool
    remark: str | None


class Rows(Section):
    """One value for each number of anti-diagonals removed."""

    value: Row
    half_width: Row


class KernelDistances(Section):
    """Of D(LP z) from LP x, on the named features; crops of one photograph are one unit."""

    features: str
    clamped: bool
    estimator: str | None = None
    value: Row | None
    half_width: Row | None
    reason: str | None = None


class LowPass(Section):
    """PSNR in dB of D(LP z) against LP x, of the control D(z) against LP x, and the gap PSNR(D(z), x) - PSNR(D(LP z), LP x)."""

    posterior: str
    convention: str
    clamped: bool
    images: int
    units: int
    rows_removed: list[int]
    psnr: Row
    control: Row
    gap: Rows
    kernel_distance: KernelDistances


class TimeShift(Section):
    """s of t' = s t / (1 + (s - 1) t) that matches the reference's signal-to-noise ratios, by two rules.

    spread: ln[t* / (1 - t*)] from the first ring to the last; cannot_change: the rules point in opposite directions.
    """

    reference: str
    by_cells: float
    by_energy: float
    spread: float
    cannot_change: bool


class Damping(Section):
    """Variance a sampler returns over the variance there is, by ring: factor for its last step alone, whole for all its steps."""

    sampler: str
    steps: int
    last_t: float
    factor: Row
    whole: Row


class Lens(Section):
    """What noise does to the normalized latent: tables over times and rings, data at t = 0.

    floor: error of v that remains for a perfect network; learnable: fall of the error of x; crossing: t at which a ring drowns;
    floor_share: the ring's share of the floor, over all times.
    """

    posterior: str
    cycles_per_side: Row
    count: list[int]
    power: Row
    times: Row
    floor: Table
    learnable: Table
    learnable_of: Literal["x"]
    crossing: Row
    floor_share: Row
    shift: TimeShift | Reason
    damping: list[Damping]


class Directional(Section):
    rmsc: Estimate | Reason
    lds: Estimate | Reason
    cds: Estimate | Reason


class Filtered(Section):
    """The same three after the filters of iREPA and REPA-DoG."""

    spatial_normalize: Directional
    dog: Directional
    gamma: float
    dog_sigmas: tuple[float, float]
    dog_alpha: float


class Direction(Directional):
    """How unit token vectors vary in space. energy: by latent band, DC left out; it sums to the mean of RMSC squared."""

    images: int
    tokens: tuple[int, int]
    bands: int
    energy: Row
    after: Filtered


class Channel(Section):
    """Of raw posterior means; posterior_std: of the noise around them, null where there is none."""

    mean: Number
    std: Number
    dead: bool
    posterior_std: Number


class EffectiveRank(Section):
    entropy: float
    participation: float
    entropy_correlation: float
    participation_correlation: float
    num_channels: int
    num_positions: int


class Bits(Section):
    bits_per_image: float
    bits_per_channel: Row
    bits_per_band: Row
    well_sampled: list[bool]


class Capacity(Bits):
    """distortion: share of the variance that may be lost."""

    distortion: float


class GridReading(Section):
    """Between 0 and 1; excess = reconstruction - input."""

    reconstruction: Number
    input: Number
    excess: Number


class Grid(Section):
    period: int
    images: int
    template: GridReading
    phase: GridReading


class Shift(Section):
    """Shift-equivariance errors; null: it has no decoder."""

    images: int
    reconstruction: Number
    whole_cell: Number
    latent: Number


class Fp16(Section):
    """Largest magnitudes seen in float32; reason: why no layer was watched."""

    largest_latent: Number
    largest_activation: Number = None
    layer: str | None = None
    overflows: bool | None = None
    reason: str | None = None


class Health(Section):
    channels: list[Channel]
    effective_rank: EffectiveRank | Reason
    capacity: list[Capacity] | Reason
    channel_capacity: Bits | Reason
    grid: Grid | Reason
    shift: Shift | Reason
    fp16: Fp16


class Finding(Section):
    """A sentence of the verdict, and the numbers it rests on."""

    topic: str
    tone: Literal["good", "warn", "note"]
    sentence: str
    numbers: dict[str, Number]
