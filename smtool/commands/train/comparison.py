"""Before and after a fine-tune: the original autoencoder and its successor on the run's validation images."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from smtool.commands.train.live_spectrum import draw_live
from smtool.commands.train.validate import Validator
from smtool.config import Config
from smtool.devices import image_layout, in_float64
from smtool.diffusability.strips import ROWS_REMOVED, measure_following, strips
from smtool.inference.reconstruct import reconstructed
from smtool.metrics.reconstruction import psnr
from smtool.networks.tokenizer import Tokenizer
from smtool.networks.trainable import TrainableAutoencoder
from smtool.randomness import generator
from smtool.report.plots import rasterized
from smtool.report.plots.strips import strips_figure
from smtool.report.tables import Table
from smtool.report.trackers import Trackers
from smtool.spectrum import band_transfer
from smtool.storage import write_json
from smtool.training.selection import evaluating

BEFORE, AFTER = "before", "after"
FILE = "comparison.json"
TRANSFER_IMAGES, FOLLOWING_IMAGES = 8, 32


class Reading(Config):
    """One autoencoder. None: it could not be measured, because latents are too small."""

    psnr: float = Field(description="mean over images of the reconstruction from the posterior's mean, dB")
    delta: float | None = Field(description="PHYSICAL delta of the posterior's mean")
    kappa: float | None = Field(description="band transfer of the decoder beyond chance, 1 is perfect")
    gap: float | None = Field(description="loss of PSNR when 12 of 15 anti-diagonals are removed from latent and image, dB")


class Comparison(Config):
    """What a fine-tune changed. drift: mean square of the change of the posterior's mean, as a fraction of each channel's
    variance, averaged over channels; 0 if latents are the same."""

    original: str
    images: int
    before: Reading
    after: Reading
    drift: float

    def line(self) -> str:
        """One line for the console."""
        parts = [
            f"{name} {_shown(old, digits)} -> {_shown(new, digits)}{unit}"
            for name, unit, digits, old, new in self._rows()
        ]
        return f"what changed since {self.original}: {', '.join(parts)}, drift {_percent(self.drift)} of the latents' variance"

    def table(self) -> Table:
        rows = [
            (f"{name}{f', {unit.strip()}' if unit else ''}", _shown(old, digits), _shown(new, digits), _change(old, new, digits))
            for name, unit, digits, old, new in self._rows()
        ]
        note = (
            f"{self.images} validation images; posterior mean. kappa: on {TRANSFER_IMAGES} of them. Low-pass gap: loss of PSNR "
            f"when {ROWS_REMOVED[-1]} of 15 anti-diagonals of each block are removed from latent and image. Drift: "
            f"{_percent(self.drift)} of the latents' variance. `smtool spectrum` measures all of these with intervals."
        )
        return Table("", ("", BEFORE, AFTER, "change"), tuple(rows), note)

    def _rows(self) -> list[tuple[str, str, int, float | None, float | None]]:
        """(name, unit, digits, before, after)."""
        return [
            ("PSNR", " dB", 2, self.before.psnr, self.after.psnr),
            ("delta", "", 2, self.before.delta, self.after.delta),
            ("kappa", "", 3, self.before.kappa, self.after.kappa),
            ("low-pass gap", " dB", 2, self.before.gap, self.after.gap),
        ]


@torch.no_grad()
def compare(
    validator: Validator,
    name: str,
    original: TrainableAutoencoder,
    result: TrainableAutoencoder,
    *,
    folder: Path,
    trackers: Trackers,
    step: int,
) -> Comparison:
    """Measure the original, called `name`, and its successor; write comparison.json and two pictures."""
    layout = image_layout(result.device, validator.images.images.shape[-2:])      # as in training, to the last bit
    original = original.to(result.device).to(memory_format=layout)
    autoencoders: dict[str, Tokenizer] = {BEFORE: original, AFTER: result}
    with evaluating(result):
        return _compared(validator, name, autoencoders, folder, trackers, step)


def _compared(
    validator: Validator, name: str, autoencoders: Mapping[str, Tokenizer], folder: Path, trackers: Trackers, step: int
) -> Comparison:
    latents: dict[str, Tensor] = {}
    readings: dict[str, Reading] = {}
    for moment, autoencoder in autoencoders.items():
        latents[moment], readings[moment] = _reading(validator, autoencoder)
    before, after = in_float64(latents[BEFORE]), in_float64(latents[AFTER])
    moved = (after - before) / before.std((0, 2, 3), keepdim=True).clamp(min=1e-12)
    found = Comparison(
        original=name, images=validator.count, before=readings[BEFORE], after=readings[AFTER],
        drift=moved.square().mean().item(),
    )
    write_json(folder / FILE, found.model_dump(mode="json"))
    if readings[BEFORE].gap is not None:
        blocks = strips(autoencoders, validator.shards)
        figure = strips_figure(blocks, [f"n = {rows}" for rows in ROWS_REMOVED])
        trackers.image(step, "before-and-after", rasterized(figure))
    if validator.fits_delta:
        note = f"{validator.count} validation images, posterior mean, each channel at unit std"
        trackers.image(step, "spectra", draw_live(validator.all_images.images, latents, delta=validator.delta, note=note))
    return found


def _reading(validator: Validator, autoencoder: Tokenizer) -> tuple[Tensor, Reading]:
    """Posterior means on the CPU, and the measured values."""
    latents, values = [], []
    for part in reconstructed(autoencoder, validator.all_images.split(validator.batch)):
        latents.append(part.latents.float().cpu())
        values.append(psnr(part.decoded.float().clamp(-1, 1), part.images).cpu())
    means = torch.cat(latents)
    reading = Reading(
        psnr=torch.cat(values).mean().item(),
        delta=validator.fitted_delta(means) if validator.fits_delta else None,
        kappa=_or_none(lambda: _kappa(autoencoder, means[:TRANSFER_IMAGES])),
        gap=_or_none(lambda: measure_following({BEFORE: autoencoder}, validator.shards, FOLLOWING_IMAGES).gap(BEFORE)),
    )
    return means, reading


def _kappa(autoencoder: Tokenizer, latents: Tensor) -> float:
    drawn = generator("comparison", "transfer")
    return band_transfer(autoencoder.decode, latents.to(autoencoder.device), generator=drawn).kappa


def _or_none(measure: Callable[[], float]) -> float | None:
    """The value; None if latents are too small for it."""
    try:
        value = measure()
    except ValueError:
        return None
    return value if value == value else None


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _change(old: float | None, new: float | None, digits: int) -> str:
    return "-" if old is None or new is None else f"{new - old:+.{digits}f}"


def _percent(fraction: float) -> str:
    return "0 %" if fraction == 0 else f"{100 * fraction:.2g} %"
