"""Validation of an autoencoder run: scores, a grid of reconstructions, and the spectrum of the latents."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from smtool.commands.train.live_spectrum import live_spectrum
from smtool.data import ImageShards, open_images
from smtool.errors import DataError
from smtool.inference.reconstruct import reconstructed
from smtool.metrics.reconstruction import SSIM_WINDOW, psnr, ssim
from smtool.networks.trainable import TrainableAutoencoder
from smtool.recipe import Data, TrainAE
from smtool.report.plots import reconstruction_grid
from smtool.report.trackers import Trackers
from smtool.spectrum import REFERENCE, fit_delta, radial_power, reference_divergence
from smtool.training.selection import evaluating

SMALLEST_FITTED = 8


def open_validation(data: Data, channels: int | None = None) -> ImageShards:
    """The validation images of a recipe: of data.validation (all its images if it has no split), else of data.train.

    channels: as in `open_images`.
    """
    opened = partial(open_images, image_size=data.image_size, channels=channels, max_bad=data.max_bad)
    if not data.validation:
        return opened(data.train, "val")
    try:
        return opened(data.validation, "val")
    except DataError:
        return opened(data.validation, "train")


class Validator:
    """Scores the autoencoder of a run on its validation images, decoding the posterior's mode."""

    def __init__(
        self, tables: TrainAE, device: str, perceptual: tuple[nn.Module, float] | None, result: Callable[[], TrainableAutoencoder]
    ) -> None:
        self.result = result
        self.shards = open_validation(tables.data, tables.model.image_channels)
        count = min(tables.validation.num_images, len(self.shards))
        self.validation = self.shards.read(range(count))
        self.images = self.validation.images
        self.grid = min(tables.validation.grid, count)
        self.batch = tables.data.batch
        self.device = device
        self.perceptual = perceptual
        esm = tables.regularizers.esm
        self.delta = esm.delta if esm else 1.0
        self.fits_delta = count > 1 and min(tables.shapes.latents[-2:]) >= SMALLEST_FITTED

    @torch.no_grad()
    def look(self, trackers: Trackers, step: int) -> dict[str, float]:
        """Log a grid and the spectrum, and return a row of scores: val_psnr, val_ssim, val_delta ..."""
        autoencoder = self.result()
        with evaluating(autoencoder):
            latents, decodings = self._passed(autoencoder)
        trackers.image(step, "reconstructions", reconstruction_grid(self.images[: self.grid], decodings[: self.grid]))
        if self.fits_delta:
            note = f"step {step:,}, {len(latents)} validation images, posterior mean, each channel at unit std"
            trackers.image(step, "spectrum", live_spectrum(self.images, latents, delta=self.delta, note=note))
        return {**self._scores(decodings), **self._spectra(latents)}

    def _passed(self, autoencoder: TrainableAutoencoder) -> tuple[Tensor, Tensor]:
        latents, decodings = [], []
        for part in reconstructed(autoencoder, self.validation.split(self.batch)):
            latents.append(part.latents.float().cpu())
            decodings.append(part.decoded.float().cpu())
        return torch.cat(latents), torch.cat(decodings)

    def _scores(self, decodings: Tensor) -> dict[str, float]:
        clamped = decodings.clamp(-1, 1)
        scores = {"val_psnr": psnr(clamped, self.images).mean().item()}
        if min(self.images.shape[-2:]) >= SSIM_WINDOW:
            scores["val_ssim"] = ssim(clamped, self.images).mean().item()
        if self.perceptual is not None:
            network = self.perceptual[0]
            parts = zip(clamped.split(self.batch), self.images.split(self.batch), strict=True)
            values = [network(x.to(self.device), y.to(self.device)).float().cpu() for x, y in parts]
            scores["val_lpips"] = torch.cat(values).mean().item()
        return scores

    def _spectra(self, latents: Tensor) -> dict[str, float]:
        """Std and REFERENCE divergence of the latents, and their PHYSICAL delta if they are large enough to fit it."""
        size = (latents.shape[-2], latents.shape[-1])
        image_power = radial_power(self.images, REFERENCE.loss, size)
        divergence = reference_divergence(image_power, radial_power(latents, REFERENCE.loss), REFERENCE.loss, delta=self.delta)
        values = {"val_latent_std": latents.std().item(), "val_esm_divergence": divergence.mean().item()}
        if self.fits_delta:
            values["val_delta"] = fitted_delta(self.images, latents)
        return values


def fitted_delta(images: Tensor, latents: Tensor) -> float:
    """PHYSICAL delta of latents scaled to unit std per channel over the set, as a transformer would get them."""
    return fit_delta(images, latents / latents.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-12)).delta
