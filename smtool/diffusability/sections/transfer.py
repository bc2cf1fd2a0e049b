"""Band transfer, which image bands respond when one band of latent frequencies is perturbed; and the verdict on alignment.

The tangent of the decoder (absolute kappa) and its answer to a removal (low-pass gap) ranked the definition sheet's two trained
autoencoders in opposite order, and each is fooled by a control that the other unmasks: the verdict needs both (section 4).
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
"""Average pooling with nearest upsampling, the crudest control that keeps frequencies in place, has 0.75; bilinear 0.93."""
KAPPA_CHANCE = 0.1
"""Controls that keep nothing in place (scrambled, stretched, space-to-depth) have -0.04 to 0.01; trained ones 0.57, 0.65."""
KAPPA_SPREAD = 0.01
"""Its spread over disjoint sets of 4 to 32 images is 0.003 to 0.011."""
ROWS_JUDGED = 12
GAP_FOLLOWS = 4.5
"""At 12 of 15 rows removed a plain autoencoder had a gap of 5.8 dB, one trained by DSM 3.1 dB: halfway between. Whatever the gap,
a decoder follows that comes nearer to LP x from LP z than from z, the control: a lossless one has a gap even then."""
ABOVE_MOSTLY = 0.5
"""More than half of the decoder's response then lies where the latent has no frequencies."""
Tangent = Literal["aligned", "partly", "chance", "unknown"]


class Transfer(Config):
    """Kappa, share, above and down of the absolute reading; rows are latent bands.

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
    absolute: Matrix
    relative: Matrix
    answered: list[bool]
    row_gain: Row
    self_check: Number
    is_linear: bool
    remark: str | None


@or_reason
@torch.no_grad()
def measure(subject: Subject, latents: Tensor, reconstructions: Tensor | None) -> Transfer:
    """From raw latents (N, C, h, w) and their decodings; 16 images suffice. K + 1 further decodings an image: one for each band
    and one for the self-check."""
    if reconstructions is None:
        raise ValueError("it has no decoder")
    found = band_transfer(
        subject.decode, latents, BANDS, generator=generator("spectrum", "transfer"), eps=EPS,
        batch=subject.batch_of_latents(latents), unperturbed=reconstructions,
    )
    return Transfer(
        images=len(latents), bands=len(found.answered), eps=EPS,
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
        f"the decoder is not linear at this scale: at a third of the perturbation the loudest row moves by "
        f"{found.self_check:.2f}, more than {LARGEST_MOVE}; the matrix holds for perturbations of {EPS:g} of each band's rms only"
    )


def findings(transfer: Transfer | Reason, low_pass: LowPass | Reason, *, can_decode: bool) -> list[Finding]:
    """Whether the decoder is frequency-aligned, and what else its responses show."""
    if not can_decode:
        return [finding("frequency-aligned", "note", "Encode only: there is no decoder whose frequencies could be followed.")]
    if isinstance(transfer, Reason):
        return [] if isinstance(low_pass, Reason) else [_alignment(transfer, low_pass)]
    return [_alignment(transfer, low_pass), *_responses(transfer)]


def _alignment(transfer: Transfer | Reason, low_pass: LowPass | Reason) -> Finding:
    kappa = None if isinstance(transfer, Reason) else transfer.kappa
    removal = None if isinstance(low_pass, Reason) else _removal(low_pass)
    if kappa is None or removal is None:
        missing = transfer if kappa is None else low_pass
        reason = missing.reason if isinstance(missing, Reason) else "not measured"
        which = "its band transfer" if kappa is None else "its low-pass curve"
        had = removal.said if removal is not None else f"absolute kappa {shown(kappa)} of 1"
        said = f"Cannot tell whether it is frequency-aligned: that needs two numbers, and {which} is missing ({reason}); {had}."
        return finding("frequency-aligned", "note", said, kappa=kappa, **(removal.numbers if removal else {}))
    tangent = _tangent(kappa)
    tone, said = _both(tangent, removal.side)
    changes = {"aligned": "stay at their frequency", "partly": "partly stay at their frequency",
               "chance": "appear at any frequency", "unknown": "stay at their frequency, just about"}[tangent]
    follows = {"below": "follows a removal", "above": "does not follow a removal", "unknown": "may follow a removal or not"}
    said += f": small changes {changes} (absolute kappa {kappa:.2f} of 1), and it {follows[removal.side]} ({removal.said})."
    return finding("frequency-aligned", tone, said, kappa=kappa, **removal.numbers)


@dataclass(frozen=True)
class _Removal:
    """The low-pass curve at the row that is judged; side "below": the decoder follows."""

    side: Side
    said: str
    numbers: Mapping[str, float | None]


def _removal(low_pass: LowPass) -> _Removal | None:
    """None where a decoding was not finite."""
    row = low_pass.rows_removed.index(ROWS_JUDGED)
    gap, psnr, control = low_pass.gap_at(ROWS_JUDGED), low_pass.psnr[row], low_pass.control[row]
    if gap.value is None or psnr is None or control is None:
        return None
    said = (f"low-pass gap {interval(gap.value, gap.half_width, digits=1)} dB at {ROWS_JUDGED} of 15 rows; "
            f"PSNR {psnr:.1f} dB, control {control:.1f} dB")
    numbers = {"gap_db": gap.value, "gap_half_width": gap.half_width, "psnr": psnr, "control": control}
    return _Removal("below" if psnr > control else side(gap.value, gap.half_width, GAP_FOLLOWS), said, numbers)


def _tangent(kappa: float) -> Tangent:
    if side(kappa, KAPPA_SPREAD, KAPPA_CHANCE) == "below":
        return "chance"
    found: dict[Side, Tangent] = {"below": "partly", "above": "aligned", "unknown": "unknown"}
    return found[side(kappa, KAPPA_SPREAD, KAPPA_ALIGNED)]


def _both(tangent: Tangent, removal: Side) -> tuple[Tone, str]:
    """Aligned needs both; one that fails is enough for not."""
    if tangent == "chance" or removal == "above":
        return "warn", "Not frequency-aligned"
    if tangent == "aligned" and removal == "below":
        return "good", "Frequency-aligned"
    return "note", "Partly frequency-aligned" if tangent == "partly" else "Cannot tell whether it is frequency-aligned"


def _responses(transfer: Transfer) -> list[Finding]:
    found = []
    if not transfer.is_linear:
        moved = f"at a third of the size, a row moved by {shown(transfer.self_check)}"
        said = f"The decoder is not linear at this scale ({moved}): its transfer matrix summarises poorly."
        found.append(finding("linearity", "warn", said, self_check=transfer.self_check))
    if transfer.above is not None and transfer.above > ABOVE_MOSTLY:
        fraction = f"{100 * transfer.above:.0f} % of what the decoder answers"
        said = f"{fraction} lies above the latent's Nyquist: channels carry what frequencies should."
        found.append(finding("above Nyquist", "warn", said, above=transfer.above))
    silent = [band + 1 for band, answered in enumerate(transfer.answered) if not answered]
    if silent:
        count = f"{len(silent)} of {len(transfer.answered)} latent bands"
        said = f"{count} have no effect on the image: {', '.join(map(str, silent))}."
        found.append(finding("unanswered", "warn", said, bands=float(len(silent))))
    return found


def table(parts: Mapping[str, Transfer | Reason]) -> Table | None:
    columns = ("kappa", "own fraction", "above Nyquist", "downwards", "relative kappa", "self-check")
    note = (
        "kappa: own fraction beyond chance, 1 is perfect; self-check: how far a row moves at a third of the size, above 0.05 the "
        "decoder is not linear at this scale"
    )
    return table_of(columns, parts, lambda one: tuple(map(shown, (
        one.kappa, one.share, one.above, one.down, one.relative_kappa, one.self_check
    ))), note)


def cells(transfer: Transfer | Reason) -> tuple[str, str, str]:
    """kappa, above and down, for the table of decoders."""
    if isinstance(transfer, Reason):
        return "-", "-", "-"
    return shown(transfer.kappa), shown(transfer.above), shown(transfer.down)


def plot(parts: Mapping[str, Transfer | Reason]) -> Plot | None:
    """The transfer matrices of every decoder that was measured."""
    matrices = [_matrices(label, one) for _, label, one in measured(parts)]
    return None if not matrices else Plot(
        "transfer", lambda: transfer_figure(matrices),
        "Heat maps: which image bands answer when one band of latent frequencies is perturbed.",
        "Every row: one band of latent frequencies is perturbed by a tenth of its strength; numbers say where the image answers, "
        "in % of the row. Good: 100 on the rising diagonal (absolute kappa 1). Right of it, the decoder adds higher frequencies; "
        "'above' are those the latent cannot hold; left of it, it leaks downwards. The small matrix is the same response read at "
        "the same fraction of Nyquist: convolutions cannot stretch frequencies, so it sits at chance (kappa 0) for real "
        "decoders.",
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
