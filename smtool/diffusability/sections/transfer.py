"""Band transfer: the image bands that respond when one band of latent frequencies is perturbed; and the verdict on alignment.

The verdict needs two measurements, absolute kappa (response to small perturbations) and the low-pass gap (response to removed
frequencies): each accepts a control autoencoder that the other rejects, and they ranked two trained autoencoders in opposite
order (spectrum.md#band-transfer).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from smtool.config import Config
from smtool.diffusability.inputs.subjects import Subject
from smtool.diffusability.sections.low_pass import LowPass
from smtool.diffusability.sections.parts import (
    Finding,
    Matrix,
    Number,
    Plot,
    Reason,
    Row,
    Side,
    Tone,
    array,
    finding,
    measured,
    numbers,
    or_reason,
    shown,
    side,
    table_of,
)
from smtool.randomness import generator
from smtool.report.plots.transfer import Matrices, transfer_figure
from smtool.report.tables import Table, interval
from smtool.spectrum import band_transfer
from smtool.spectrum.transfer import LARGEST_MOVE, BandTransfer

BANDS = 8
EPS = 0.1
KAPPA_ALIGNED = 0.75
"""Average pooling with nearest upsampling, the simplest control that keeps frequencies in place, has 0.75; bilinear 0.93."""
KAPPA_CHANCE = 0.1
"""Controls that move frequencies (scrambled, stretched, space-to-depth) have -0.04 to 0.01; trained autoencoders 0.57, 0.65."""
KAPPA_SPREAD = 0.01
"""Half-width of kappa. Its spread over disjoint sets of 4 to 32 images is 0.003 to 0.011."""
KAPPA_SPREAD_CUT = 0.05
"""Half-width of kappa measured with 4 bands instead of 8: it differs by up to 0.04 on three autoencoders."""
ROWS_JUDGED = 12
GAP_FOLLOWS = 4.5
"""Largest gap in dB of a decoder that follows, with 12 of 15 rows removed: halfway between a plain autoencoder (5.8 dB) and one
trained with DSM (3.1 dB). A decoder whose D(LP z) is nearer to LP x than the control D(z) also follows, whatever its gap, because
a lossless autoencoder has a gap even then."""
ABOVE_MOSTLY = 0.5
"""Above this fraction, most of the decoder's response lies at frequencies that the latent does not have."""
Tangent = Literal["aligned", "partly", "chance", "unknown"]


class Transfer(Config):
    """Response of image bands (columns) to perturbed latent bands (rows), each row summing to 1 (spectrum.md#band-transfer).

    absolute: K x (K + 1), bands at the same cycles per image, the last column above the latent's Nyquist frequency; relative:
    K x K, bands at the same fraction of Nyquist; rows without response are 0, and answered is false for them. share, kappa,
    above, down: of the absolute matrix: fraction on the diagonal, the same beyond chance, above Nyquist, below the diagonal.
    row_gain: response relative to the perturbation; self_check: change of a row at a third of eps; remark: why the matrix is of
    limited use; kappa_half_width: written only where fewer bands than usual were measured.
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
    absolute: Matrix
    relative: Matrix
    answered: list[bool]
    row_gain: Row
    self_check: Number
    is_linear: bool
    remark: str | None
    kappa_half_width: float = KAPPA_SPREAD


@or_reason
@torch.no_grad()
def measure(subject: Subject, latents: Tensor, reconstructions: Tensor | None, *, bands: int = BANDS) -> Transfer:
    """Measure band transfer from raw latents (N, C, h, w) and their decodings, None without a decoder; 16 images suffice.

    K + 1 further decodings per image: one per band and one for the self-check. With fewer bands than BANDS, kappa has a wider
    interval.
    """
    if reconstructions is None:
        raise ValueError("it has no decoder")
    found = band_transfer(
        subject.decode, latents, bands, generator=generator("spectrum", "transfer"), eps=EPS,
        batch=subject.batch_of_latents(latents), unperturbed=reconstructions,
    )
    wider = {"kappa_half_width": KAPPA_SPREAD_CUT} if bands < BANDS else {}
    return Transfer(
        **wider, images=len(latents), bands=len(found.answered), eps=EPS,
        kappa=found.kappa, share=found.fraction, above=found.above, down=found.down,
        relative_share=found.relative_fraction, relative_kappa=found.relative_kappa,
        absolute=[numbers(row) for row in found.absolute], relative=[numbers(row) for row in found.relative],
        answered=found.answered.tolist(), row_gain=numbers(found.row_gain),
        self_check=found.self_check, is_linear=found.is_linear, remark=_remark(found),
    )


def _remark(found: BandTransfer) -> str | None:
    if found.is_linear:
        return None
    return (
        f"the decoder is not linear at this scale: at a third of the perturbation the strongest row changes by "
        f"{found.self_check:.2f}, more than {LARGEST_MOVE}; the matrix holds for perturbations of {EPS:g} of each band's rms only"
    )


def findings(
    transfer: Transfer | Reason, low_pass: LowPass | Reason, *, can_decode: bool, cells: int | None = None
) -> list[Finding]:
    """Findings on frequency alignment, and on other properties of the decoder's response.

    cells: of the latent's shorter side. With as many bands, the first holds only the mean, which is never perturbed.
    """
    if not can_decode:
        return [finding("frequency-aligned", "note", "Encode only: frequency alignment is a property of the decoder.")]
    if isinstance(transfer, Reason):
        return [] if isinstance(low_pass, Reason) else [_alignment(transfer, low_pass)]
    return [_alignment(transfer, low_pass), *_responses(transfer, first=1 if len(transfer.answered) == cells else 0)]


def _alignment(transfer: Transfer | Reason, low_pass: LowPass | Reason) -> Finding:
    kappa = None if isinstance(transfer, Reason) else transfer.kappa
    removal = None if isinstance(low_pass, Reason) else _removal(low_pass)
    if kappa is None or removal is None:
        missing = transfer if kappa is None else low_pass
        reason = missing.reason if isinstance(missing, Reason) else "not measured"
        which = "the band transfer" if kappa is None else "the low-pass curve"
        had = removal.said if removal is not None else f"absolute kappa {shown(kappa)} of 1"
        said = f"Frequency alignment undecided: it needs two measurements, and {which} is missing ({reason}); {had}."
        return finding("frequency-aligned", "note", said, kappa=kappa, **(removal.numbers if removal else {}))
    tangent = _tangent(kappa, KAPPA_SPREAD if isinstance(transfer, Reason) else transfer.kappa_half_width)
    tone, said, meaning = _both(tangent, removal.side)
    changes = {"aligned": "stays in the same image band", "partly": "stays partly in the same image band",
               "chance": "appears in any image band", "unknown": "is at the limit of staying in the same image band"}[tangent]
    follows = {"below": "follows", "above": "does not follow", "unknown": "may or may not follow"}[removal.side]
    said += (f": a small change in a latent band {changes} (absolute kappa {kappa:.2f} of 1), and the decoder {follows} when "
             f"frequencies are removed ({removal.said}){meaning}.")
    return finding("frequency-aligned", tone, said, kappa=kappa, **removal.numbers)


@dataclass(frozen=True)
class _Removal:
    """The low-pass curve at ROWS_JUDGED, as text and numbers; side "below": the decoder follows."""

    side: Side
    said: str
    numbers: Mapping[str, float | None]


def _removal(low_pass: LowPass) -> _Removal | None:
    """The low-pass curve at ROWS_JUDGED; None if a decoding was not finite."""
    row = low_pass.rows_removed.index(ROWS_JUDGED)
    gap, psnr, control = low_pass.gap_at(ROWS_JUDGED), low_pass.psnr[row], low_pass.control[row]
    if gap.value is None or psnr is None or control is None:
        return None
    said = (f"low-pass gap {interval(gap.value, gap.half_width, digits=1)} dB with {ROWS_JUDGED} of 15 rows removed; "
            f"PSNR {psnr:.1f} dB, control {control:.1f} dB")
    numbers = {"gap_db": gap.value, "gap_half_width": gap.half_width, "psnr": psnr, "control": control}
    return _Removal("below" if psnr > control else side(gap.value, gap.half_width, GAP_FOLLOWS), said, numbers)


def _tangent(kappa: float, half_width: float) -> Tangent:
    if side(kappa, half_width, KAPPA_CHANCE) == "below":
        return "chance"
    found: dict[Side, Tangent] = {"below": "partly", "above": "aligned", "unknown": "unknown"}
    return found[side(kappa, half_width, KAPPA_ALIGNED)]


def _both(tangent: Tangent, removal: Side) -> tuple[Tone, str, str]:
    """Tone, judgement, and what it means for a diffusion model. "Aligned" needs both measurements; one failure means "not"."""
    if tangent == "chance":
        return "warn", "Not frequency-aligned", "; an error of the diffusion model in one band spreads to other image bands"
    if removal == "above":
        return "warn", "Not frequency-aligned", "; frequencies that the diffusion model misses also disturb the rest of the image"
    if tangent == "aligned" and removal == "below":
        return "good", "Frequency-aligned", "; an error of the diffusion model in one band stays in that image band"
    return "note", "Partly frequency-aligned" if tangent == "partly" else "Frequency alignment undecided", ""


def _responses(transfer: Transfer, *, first: int) -> list[Finding]:
    """first: index of the lowest band with a frequency in it."""
    found = []
    if not transfer.is_linear:
        moved = f"at a third of the perturbation, a row of the matrix changes by {shown(transfer.self_check)}"
        said = f"The decoder is not linear at this scale ({moved}): its transfer matrix describes it poorly."
        found.append(finding("linearity", "warn", said, self_check=transfer.self_check))
    if transfer.above is not None and transfer.above > ABOVE_MOSTLY:
        fraction = f"{100 * transfer.above:.0f} % of the decoder's response"
        said = (f"{fraction} lies above the latent's Nyquist frequency: fine detail is coded in the channels, and the latent's "
                "power spectrum says little about it.")
        found.append(finding("above Nyquist", "warn", said, above=transfer.above))
    silent = [band + 1 for band, answered in enumerate(transfer.answered) if band >= first and not answered]
    if silent:
        count = f"{len(silent)} of {len(transfer.answered) - first} latent bands"
        listed = ", ".join(map(str, silent))
        said = f"{count} have no effect on the image: {listed}. A diffusion model learns them without benefit."
        found.append(finding("unanswered", "warn", said, bands=float(len(silent))))
    return found


def table(parts: Mapping[str, Transfer | Reason]) -> Table | None:
    columns = ("kappa", "same band", "above Nyquist", "lower bands", "relative kappa", "self-check")
    note = (
        "same band, above Nyquist, lower bands: fractions of the response; kappa: same-band fraction beyond chance (ideal: 1); "
        "self-check: change of a row at a third of the perturbation; above 0.05 the decoder is not linear at this scale"
    )
    return table_of(columns, parts, lambda one: tuple(map(shown, (
        one.kappa, one.share, one.above, one.down, one.relative_kappa, one.self_check
    ))), note)


def cells(transfer: Transfer | Reason) -> tuple[str, str, str]:
    """Cells with kappa, above and down, for the table of decoders."""
    if isinstance(transfer, Reason):
        return "-", "-", "-"
    return shown(transfer.kappa), shown(transfer.above), shown(transfer.down)


def plot(parts: Mapping[str, Transfer | Reason]) -> Plot | None:
    """Plot of the transfer matrices of all measured decoders; None without any."""
    matrices = [_matrices(label, one) for _, label, one in measured(parts)]
    return None if not matrices else Plot(
        "transfer", lambda: transfer_figure(matrices),
        "Heat maps: response of image bands when one band of latent frequencies is perturbed.",
        "Each row: one band of latent frequencies is perturbed by a tenth of its rms; the numbers are the response of image "
        "bands in % of the row. Good: 100 on the rising diagonal (absolute kappa 1). Right of the diagonal, the decoder adds "
        "higher frequencies, in the column 'above' those above the latent's Nyquist frequency; left of it, it adds lower ones. "
        "The small matrix shows the same response by fraction of Nyquist: convolutions cannot stretch frequencies, so real "
        "decoders are at chance there (kappa 0). If there are as many bands as latent cells in a side, the first band holds only "
        "the mean, which is never perturbed, and has no response.",
    )


def _matrices(label: str, one: Transfer) -> Matrices:
    kappa, above, down, relative = ("none" if value is None else f"{value:.2f}"
                                    for value in (one.kappa, one.above, one.down, one.relative_kappa))
    return Matrices(
        f"{label}\nkappa {kappa}, above {above}, down {down}",
        np.stack([array(row) for row in one.absolute]),
        np.stack([array(row) for row in one.relative]),
        f"relative, kappa {relative}",
        one.answered,
    )
