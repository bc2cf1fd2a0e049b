"""Predictors from the report of `smtool spectrum`: one number for each of its measures."""

from pathlib import Path

import torch

from smtool.commands.race.result import Images
from smtool.commands.race.trial import Measured, Residual
from smtool.diffusability.sections.low_pass import LowPass
from smtool.diffusability.sections.parts import Estimate, Reason, headline
from smtool.diffusability.sections.physical import Decibel, Delta, PhysicalReading
from smtool.diffusability.sections.reference import Divergence
from smtool.diffusability.spectrum import spectrum
from smtool.report.console import Console
from smtool.spectrum import spectral_flatness

SPECTRUM_IMAGES = 240
LOW_PASS_ROWS = 10
DELTA = 1.0
"""Delta of the target that all racers are compared with, independent of their recipes."""


def spectral_predictors(autoencoder: Path, images: Images, device: str) -> tuple[dict[str, Measured], Residual]:
    """Predictors by name, and the latents' power over the target's by frequency, measured on validation images."""
    source = images.validation or images.train
    report = spectrum(
        [str(autoencoder)], data=source, num_images=SPECTRUM_IMAGES, delta=DELTA, device=device, console=Console(quiet=True)
    )
    part = report.autoencoders[0]
    physical, reference = headline(part.physical), headline(part.reference)
    kappa = part.transfer if isinstance(part.transfer, Reason) else Estimate(value=part.transfer.kappa, half_width=None)
    gap = part.low_pass.gap_at(LOW_PASS_ROWS) if isinstance(part.low_pass, LowPass) else part.low_pass
    return {
        "esm_divergence": _measured(reference.divergence.raw),
        "esm_divergence_matched": _measured(reference.divergence.match),
        "divergence_db": _measured(physical.target.divergence_db),
        "delta": _measured(physical.delta),
        "flatness": _flatness(physical),
        "kappa": _measured(kappa),
        "low_pass_gap": _measured(gap),
        "rmsc": _measured(part.direction.rmsc),
        "lds": _measured(part.direction.lds),
        "lds_paper": _measured(part.direction.lds_paper),
        "cds": _measured(part.direction.cds),
    }, Residual(cycles_per_side=physical.cycles_per_side, residual_db=physical.target.residual_db)


def _measured(part: Estimate | Divergence | Decibel | Delta | Reason) -> Measured:
    """The value, with its half-width if it has one; or the reason why it was not measured."""
    if isinstance(part, Reason):
        return Measured(reason=part.reason)
    if part.value is None:
        return Measured(reason="not measured")
    half_width = None if isinstance(part, Decibel) else part.half_width
    return Measured(value=part.value) if half_width is None else Measured(value=part.value, half_width=half_width)


def _flatness(physical: PhysicalReading) -> Measured:
    """Geometric over arithmetic mean of the ring powers, weighted by the cells of each ring (arXiv 2603.14645, Lemma A.2)."""
    power = torch.tensor(physical.power, dtype=torch.float64).repeat_interleave(torch.tensor(physical.cells))
    return Measured(value=float(spectral_flatness(power)))
