"""The low-pass curve: does an autoencoder decode a low-passed latent LP z into the equally low-passed image LP x, as DSM asks?

Relative convention: the same DCT anti-diagonals are removed from 8x8 blocks of latent cells and of pixels
(spectrum.md#band-transfer).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from smtool.config import Config
from smtool.data import to_uint8
from smtool.diffusability.inputs.subjects import Subject
from smtool.diffusability.sections.parts import (
    Estimate,
    Plot,
    Reason,
    Row,
    array,
    banded,
    measured,
    numbers,
    shown,
    shown_estimate,
)
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.inference.features import pooled_features
from smtool.metrics.kernel import paired_kernel_distance
from smtool.metrics.reconstruction import psnr
from smtool.report.plots import Curve
from smtool.report.plots.low_pass import low_pass_figure
from smtool.report.tables import Table
from smtool.spectrum import fit_cutoff, fitted_low_pass
from smtool.spectrum.jackknife import student_t_quantile
from smtool.spectrum.units import Units, mean_and_half_width

ROWS_REMOVED = tuple(range(15))
ROWS_IN_TABLE = (8, 10, 12, 14)
SHOWN_ROWS = (0, 4, 8, 10, 12, 14)
SHOWN_IMAGES = 2
LARGEST_PSNR = 60.0
"""dB. Above it, two images differ by less than 8 bits resolve. Without the limit, the gap of a lossless control would be float
rounding."""
_ESTIMATOR = "cubic kernel, unbiased: pairs within a unit are left out"


class Gap(Config):
    """The gap in dB and its half-width: one value for each number of removed anti-diagonals."""

    value: Row
    half_width: Row


class KernelDistances(Config):
    """Kernel distances of D(LP z) from LP x on the named features, one for each number of removed anti-diagonals.

    Crops of one photograph are one unit. reason: why there are no values.
    """

    features: str
    clamped: bool
    estimator: str | None = None
    value: Row | None
    half_width: Row | None
    reason: str | None = None


class LowPass(Config):
    """PSNR in dB of D(LP z) against LP x, of the control D(z) against LP x, and the gap PSNR(D(z), x) - PSNR(D(LP z), LP x).

    rows_removed: numbers of removed anti-diagonals, of 15; one value of each row for each.
    """

    posterior: str
    convention: str
    clamped: bool
    images: int
    units: int
    rows_removed: list[int]
    psnr: Row
    control: Row
    gap: Gap
    kernel_distance: KernelDistances

    def gap_at(self, rows: int) -> Estimate:
        """The gap in dB with `rows` anti-diagonals removed, and its half-width."""
        index = self.rows_removed.index(rows)
        return Estimate(value=self.gap.value[index], half_width=self.gap.half_width[index])


@dataclass(frozen=True)
class LowPassed:
    """The section, and pictures of LP x and D(LP z) for the first images.

    shown: (rows, Tensor (images, 2, len(rows), C, H, W) uint8), or None without a curve; rows: numbers of removed anti-diagonals.
    """

    section: LowPass | Reason
    shown: tuple[Sequence[int], Tensor] | None = None


@torch.no_grad()
def measure(
    subject: Subject,
    images: Tensor,
    latents: Tensor,
    reconstructions: Tensor | None,
    units: Units,
    *,
    removals: Sequence[int] = ROWS_REMOVED,
    extractor: Extractor | None = None,
) -> LowPassed:
    """Measure the curve of images (N, C, H, W) in [-1, 1] and their raw latents (N, C, h, w), sampled from the posterior.

    reconstructions: D(z), the decodings without removal. removals: numbers of removed anti-diagonals, 0 first; every image is
    decoded once more for each of the others. PSNR compares unclamped images; the kernel distance compares 8-bit images on the
    extractor's features (default: "random", which needs no downloaded weights). A latent smaller than 8 cells is one block with a
    scaled cut-off (`block = "fit"`). The section is a Reason without a decoder or where blocks do not fill a side.
    """
    if reconstructions is None:
        return LowPassed(Reason(reason="it has no decoder"))
    extractor = extractor or load_extractor("random").to(images.device)
    aligned, control, features, strips = [], [], [], []
    try:
        for rows, target, answer in _removals(subject, images, latents, reconstructions, removals):
            aligned.append(psnr(answer, target).clamp(max=LARGEST_PSNR))
            control.append(psnr(reconstructions, target).clamp(max=LARGEST_PSNR))
            features.append((_features(extractor, answer), _features(extractor, target)))
            if rows in SHOWN_ROWS:
                strips.append(to_uint8(torch.stack([target[:SHOWN_IMAGES], answer[:SHOWN_IMAGES]], 1)).cpu())
    except ValueError as error:      # sides that blocks do not fill
        return LowPassed(Reason(reason=str(error)))
    block, _ = fit_cutoff(min(latents.shape[-2:]), 0)
    decibels, controls = (torch.stack(column, 1).cpu().double() for column in (aligned, control))      # (N, R)
    gap, half_width = mean_and_half_width(units.collapse(decibels[:, :1] - decibels))
    section = LowPass(
        posterior="deterministic" if subject.codec.deterministic else "sample",
        convention=f"relative: blocks of 8 pixels and of {block} latent cells; PSNR is limited to {LARGEST_PSNR:g} dB",
        clamped=False, images=len(images), units=len(units), rows_removed=list(removals),
        psnr=numbers(units.collapse(decibels).mean(0)), control=numbers(units.collapse(controls).mean(0)),
        gap=Gap(value=numbers(gap), half_width=numbers(half_width)),
        kernel_distance=_kernel_distances(features, units, extractor.name),
    )
    return LowPassed(section, ([rows for rows in removals if rows in SHOWN_ROWS], torch.stack(strips, 2)))


def _removals(
    subject: Subject, images: Tensor, latents: Tensor, reconstructions: Tensor, removals: Sequence[int]
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (n, LP_n x, D(LP_n z)) for every n; only one n is in memory at a time."""
    for rows in removals:
        target = fitted_low_pass(images, rows)
        yield rows, target, subject.decode_all(fitted_low_pass(latents, rows)) if rows else reconstructions


def _features(extractor: Extractor, images: Tensor) -> Tensor:
    return pooled_features(extractor, to_uint8(images).split(16))


def _kernel_distances(features: list[tuple[Tensor, Tensor]], units: Units, name: str) -> KernelDistances:
    """Kernel distances of D(LP z) from LP x for each n; half-widths are t(units - 1) times the jackknife error over units."""
    count, made = len(units), partial(KernelDistances, features=name, clamped=True, estimator=_ESTIMATOR)
    if count < 2:
        return made(value=None, half_width=None, reason=f"a kernel distance needs at least 2 {units.name}s, found {count}")
    found = [paired_kernel_distance(answer, target, units.numbers()) for answer, target in features]
    t = student_t_quantile(0.975, count - 1)
    values, widths = (torch.tensor(column) for column in zip(*((one.value, t * one.error) for one in found), strict=True))
    return made(value=numbers(values), half_width=None if count == 2 else numbers(widths))


def table(parts: Mapping[str, LowPass | Reason]) -> Table | None:
    rows = []
    conventions: dict[str, list[str]] = {}
    for _, label, one in measured(parts):
        gaps = (shown_estimate(one.gap_at(n), digits=1) if n in one.rows_removed else "-" for n in ROWS_IN_TABLE)
        rows.append((label, f"{shown(one.psnr[0], 1)} dB", *gaps))
        conventions.setdefault(f"{one.images} images; {one.convention}", []).append(label)
    notes = ["gap = PSNR(D(z), x) - PSNR(D(LP z), LP x) in dB with n of 15 anti-diagonals removed; z sampled from the posterior"]
    notes += [f"{label}: {one.reason}" for label, one in parts.items() if isinstance(one, Reason)]
    notes += [f"{', '.join(labels)}: {convention}" for convention, labels in conventions.items()]
    columns = ("LOW-PASS", "PSNR", *(f"gap n={n}" for n in ROWS_IN_TABLE))
    return Table("", columns, tuple(rows), "\n".join(notes)) if rows else None


def plot(parts: Mapping[str, LowPass | Reason], *, place: str) -> Plot | None:
    """Plot of the curve with its control, the gap and the kernel distance. place: name and size of the images."""
    if not (found := measured(parts)):
        return None
    curves, gaps = low_pass_curves(parts)
    note = (
        f"{max(one.images for *_, one in found)} images {place}; latents sampled from the posterior\n"
        "LP removes n of the 15 anti-diagonals of 8x8 DCT blocks of pixels and of latent cells (the same fraction of "
        "smaller blocks)"
    )
    distances = [(colour, one) for colour, _, one in found if one.kernel_distance.value]
    lines = [banded(one.rows_removed, one.kernel_distance.value or (), one.kernel_distance.half_width, colour=colour)
             for colour, one in distances]
    features = distances[0][1].kernel_distance.features if distances else ""
    title = "Low-pass reconstruction: does the decoder follow?"
    return Plot(
        "low-pass", lambda: low_pass_figure(curves, gaps, lines, features=features, title=title, note=note),
        "PSNR of decoded low-passed latents against equally low-passed images, the gap to n = 0, and their kernel distance.",
        "The same frequencies are removed from latent and image. Good: the solid line is level and its gap is near 0. Dashed: "
        "the control, the decoding of the whole latent against the low-passed image. A solid line above the control shows that "
        "the decoder follows the removal; one far below shows that the removal disturbs the decoder. Kernel distance, where "
        "drawn: low is good; it detects differences that hardly change the PSNR.",
    )


def low_pass_curves(parts: Mapping[str, LowPass | Reason]) -> tuple[Sequence[Curve], Sequence[Curve]]:
    """Curves of the PSNR with its control, and of the gap."""
    curves, gaps = [], []
    for colour, label, one in measured(parts):
        rows = one.rows_removed
        curves.append(Curve(f"{label}: D(LP z) against LP x", rows, array(one.psnr), colour=colour))
        curves.append(Curve(f"{label}: D(z) against LP x (control)", rows, array(one.control), role="control", colour=colour))
        gaps.append(banded(rows, one.gap.value, one.gap.half_width, colour=colour))
    return curves, gaps
