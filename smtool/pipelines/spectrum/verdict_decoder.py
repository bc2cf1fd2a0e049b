"""Does the decoder put each latent frequency where it belongs? Two numbers are needed (definition sheet, section 4).

The tangent of the decoder (band transfer, absolute kappa) and its answer to a removal (low-pass gap) ranked the sheet's two
trained autoencoders in opposite order, and each is fooled by a control that the other unmasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from smtool.pipelines.spectrum.findings import Side, Tone, finding, side
from smtool.report.tables import interval

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
"""More than half of what a decoder answers then lies where the latent has no frequencies."""

Entry = Mapping[str, Any]
Findings = list[dict[str, Any]]
Tangent = Literal["aligned", "partly", "chance", "unknown"]


def decoder_findings(autoencoder: Entry) -> Findings:
    """Whether it is frequency-aligned, and what else its responses show."""
    transfer, low_pass = autoencoder.get("transfer") or {}, autoencoder.get("low_pass") or {}
    if not autoencoder.get("can_decode", True):
        return [finding("frequency-aligned", "note", "Encode only: there is no decoder whose frequencies could be followed.")]
    found = [_alignment(transfer, low_pass)] if "kappa" in transfer or "gap" in low_pass else []
    return found + _responses(transfer)


def _alignment(transfer: Entry, low_pass: Entry) -> dict[str, Any]:
    kappa, removal = transfer.get("kappa"), _removal(low_pass)
    if kappa is None or removal is None:
        missing = transfer.get("reason", "not measured") if kappa is None else low_pass.get("reason", "not measured")
        which = "its band transfer" if kappa is None else "its low-pass curve"
        had = removal.said if removal is not None else f"absolute kappa {kappa:.2f} of 1"
        said = f"Cannot tell whether it is frequency-aligned: that needs two numbers, and {which} is missing ({missing}); {had}."
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


def _removal(low_pass: Entry) -> _Removal | None:
    if "gap" not in low_pass:
        return None
    row = low_pass["rows_removed"].index(ROWS_JUDGED)
    gap, half_width = low_pass["gap"]["value"][row], low_pass["gap"]["half_width"][row]
    psnr, control = low_pass["psnr"][row], low_pass["control"][row]
    said = (f"low-pass gap {interval(gap, half_width, digits=1)} dB at {ROWS_JUDGED} of 15 rows; "
            f"PSNR {psnr:.1f} dB, control {control:.1f} dB")
    numbers = {"gap_db": gap, "gap_half_width": half_width, "psnr": psnr, "control": control}
    return _Removal("below" if psnr > control else side(gap, half_width, GAP_FOLLOWS), said, numbers)


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


def _responses(transfer: Entry) -> Findings:
    if "kappa" not in transfer:
        return []
    found = []
    if not transfer["is_linear"]:
        moved = f"at a third of the size, a row moved by {transfer['self_check']:.2f}"
        said = f"The decoder is not linear at this scale ({moved}): its transfer matrix summarises poorly."
        found.append(finding("linearity", "warn", said, self_check=transfer["self_check"]))
    if transfer["above"] > ABOVE_MOSTLY:
        share = f"{100 * transfer['above']:.0f} % of what the decoder answers"
        said = f"{share} lies above the latent's Nyquist: channels carry what frequencies should."
        found.append(finding("above Nyquist", "warn", said, above=transfer["above"]))
    silent = [band + 1 for band, answered in enumerate(transfer["answered"]) if not answered]
    if silent:
        count = f"{len(silent)} of {len(transfer['answered'])} latent bands"
        said = f"{count} have no effect on the image: {', '.join(map(str, silent))}."
        found.append(finding("unanswered", "warn", said, bands=float(len(silent))))
    return found
