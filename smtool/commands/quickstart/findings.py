"""Sentences of the quickstart's page. They follow from the numbers of the run; the paper's results are not repeated."""

from collections.abc import Mapping

from smtool.commands.evaluate.result import ReconstructionEvaluation
from smtool.commands.quickstart.scores import score_cell
from smtool.diffusability.report import Report
from smtool.diffusability.sections.parts import headline
from smtool.diffusability.sections.physical import Decibel, Delta, Slope
from smtool.diffusability.strips import ROWS_REMOVED, Following
from smtool.report.tables import interval

LIVE = (
    "A minute of training gives blurred images and does not rank methods: intervals resample the photographs, and another seed "
    "moves the numbers too. recipes/specimen has the long trainings of the specimens; for the published comparison see arXiv "
    "2603.14645 and recipes/paper."
)


def following_sentence(following: Following, plain: str, dsm: str) -> str:
    """What the strongest removal changes for either decoder, and whether the paired difference is significant."""
    changes = {label: _signed(*following.change(label)) for label in (plain, dsm)}
    mean, half_width = following.difference(dsm, plain)
    if mean - half_width > 0:
        verdict = f"The decoder of {dsm} follows the removal better"
    elif mean + half_width < 0:
        verdict = f"The decoder of {plain} follows the removal better"
    else:
        verdict = "These crops do not show which decoder follows the removal better"
    units, crops = following.units, f"{len(following.units.groups)} validation crops"
    crops += f" of {len(units)} photographs" if units.name == "photograph" else ""
    return (
        f"Removing n = {ROWS_REMOVED[-1]} changes the PSNR of {plain} by {changes[plain]} dB and that of {dsm} by {changes[dsm]} "
        f"dB ({crops}; 95 % intervals). {verdict}: the paired difference is {_signed(mean, half_width)} dB."
    )


def psnr_sentence(evaluations: Mapping[str, ReconstructionEvaluation], plain: str, dsm: str) -> str:
    """PSNR of every autoencoder, and what DSM costs or gains between the two labels."""
    found = {label: one.scores["psnr"] for label, one in evaluations.items() if "psnr" in one.scores}
    listed = ", ".join(f"{label} {score_cell(score.value, score.half_width)} dB" for label, score in found.items())
    said = f"PSNR of whole reconstructions: {listed}."
    values = [found[label].value for label in (dsm, plain) if label in found]
    if len(values) == 2 and values[0] is not None and values[1] is not None:
        change = values[0] - values[1]
        said += (
            f" {dsm} decoded whole images in a quarter of its training steps, low-passed ones in the others: at equal steps its "
            f"PSNR is {abs(change):.1f} dB {'lower' if change < 0 else 'higher'} than that of {plain}."
        )
    return said


def spectra_sentence(report: Report) -> str:
    parts, slope = [], report.images.physical.slope if report.images.physical else None
    for autoencoder in report.autoencoders:
        head = headline(autoencoder.physical)
        if isinstance(head.delta, Delta) and isinstance(head.target.divergence_db, Decibel):
            delta = interval(head.delta.value, head.delta.half_width)
            parts.append(f"{autoencoder.label} {delta} ({head.target.divergence_db.value:.1f} dB from the target)")
    image = interval(slope.exponent, slope.half_width) if isinstance(slope, Slope) else "not fitted"
    return (
        f"The power of the images falls with a slope of {image}. delta says how much flatter the latents are: 0 copies the "
        f"images, {report.passport.delta:g} is the target. Here: {'; '.join(parts)}. {_verdict(report)}"
    )


def _verdict(report: Report) -> str:
    found = [headline(autoencoder.physical).delta for autoencoder in report.autoencoders]
    deltas = [(delta.value, delta.half_width) for delta in found if isinstance(delta, Delta) and delta.half_width is not None]
    if len(found) != 2 or len(deltas) != 2:
        return ""
    apart = abs(deltas[0][0] - deltas[1][0]) > deltas[0][1] + deltas[1][1]
    return f"The two intervals {'do not overlap' if apart else 'overlap'}."


def _signed(value: float, half_width: float) -> str:
    return f"{value:+.1f} ± {half_width:.1f}"
