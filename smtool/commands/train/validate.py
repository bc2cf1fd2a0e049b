"""Validation of an autoencoder run: scores, a grid of reconstructions, and the spectrum of the latents."""

from collections.abc import Callable, Mapping
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from smtool.commands.train.live_spectrum import live_spectrum
from smtool.data import ImageShards, open_images
from smtool.data.batches import ImageBatch
from smtool.errors import DataError
from smtool.inference.reconstruct import reconstructed
from smtool.metrics.reconstruction import SSIM_WINDOW, psnr, ssim
from smtool.networks.trainable import TrainableAutoencoder
from smtool.recipe import Data, TrainAE
from smtool.report.plots import reconstruction_grid
from smtool.report.trackers import Trackers
from smtool.spectrum import PHYSICAL, REFERENCE, Spectrum, fit_delta_spectra, radial_power, reference_divergence, spectrum_of
from smtool.training.distributed import Ranks
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
    """Scores the autoencoder of a run on its validation images, decoding the posterior's mode.

    images: those of this rank's share, `batch` of which are encoded at once. count: number of validation images.
    """

    def __init__(
        self,
        tables: TrainAE,
        ranks: Ranks,
        perceptual: tuple[nn.Module, float] | None,
        result: Callable[[], TrainableAutoencoder],
    ) -> None:
        self.result, self.ranks = result, ranks
        self.shards = open_validation(tables.data, tables.model.image_channels)
        self.count = min(tables.validation.num_images, len(self.shards))
        self.images = self.shards.read(ranks.positions(self.count))
        self.grid = min(tables.validation.grid, self.count)
        self.batch = tables.data.batch // ranks.world
        self.perceptual = perceptual
        esm = tables.regularizers.esm
        self.delta = esm.delta if esm else 1.0
        self.latent_size = tables.shapes.latents[-2:]
        self.fits_delta = self.count > 1 and min(self.latent_size) >= SMALLEST_FITTED

    @cached_property
    def all_images(self) -> ImageBatch:
        """Every validation image, in order; the first rank needs them for pictures."""
        return self.images if self.ranks.world == 1 else self.shards.read(range(self.count))

    @torch.no_grad()
    def share(self, step: int) -> dict[str, Tensor]:
        """Latents and scores of this rank's images, and the first decodings."""
        autoencoder, shown = self.result(), -(-self.grid // self.ranks.world)
        parts: list[dict[str, Tensor]] = []
        with evaluating(autoencoder):
            for part in reconstructed(autoencoder, self.images.split(self.batch)):
                scores = self._scores(part.decoded.float().clamp(-1, 1), part.images)
                parts.append({"latents": part.latents.float().cpu(), "decodings": part.decoded[:shown].float().cpu(), **scores})
        rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        power = radial_power(rows["latents"], REFERENCE.loss)
        divergence = reference_divergence(self._image_power, power, REFERENCE.loss, delta=self.delta)
        return {**rows, "decodings": rows["decodings"][:shown], "val_esm_divergence": divergence}

    @torch.no_grad()
    def look(self, trackers: Trackers, step: int, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """Log a grid and the spectrum, and return a row of scores: val_psnr, val_ssim, val_delta ..."""
        images, latents = self.all_images.images, rows["latents"][: self.count]
        trackers.image(step, "reconstructions", reconstruction_grid(images[: self.grid], rows["decodings"][: self.grid]))
        if self.fits_delta:
            note = f"step {step:,}, {len(latents)} validation images, posterior mean, each channel at unit std"
            trackers.image(step, "spectrum", live_spectrum(images, latents, delta=self.delta, note=note))
        means = {name: value[: self.count].mean().item() for name, value in rows.items() if name.startswith("val_")}
        delta = {"val_delta": self.fitted_delta(latents)} if self.fits_delta else {}
        return {**means, "val_latent_std": latents.std().item(), **delta}

    def fitted_delta(self, latents: Tensor) -> float:
        """PHYSICAL delta of all latents, scaled to unit std per channel over the set, as a transformer would get them."""
        normalized = latents / latents.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-12)
        return fit_delta_spectra(self._image_spectrum, spectrum_of(normalized, PHYSICAL)).delta

    @cached_property
    def _image_power(self) -> Tensor:
        return radial_power(self.images.images, REFERENCE.loss, self.latent_size)

    @cached_property
    def _image_spectrum(self) -> Spectrum:
        return spectrum_of(self.all_images.images, PHYSICAL, self.latent_size)

    def _scores(self, decodings: Tensor, images: Tensor) -> dict[str, Tensor]:
        """A value for each image, on the CPU; decodings in [-1, 1]."""
        scores = {} if self.perceptual is None else {"val_lpips": self.perceptual[0](decodings, images).float().flatten().cpu()}
        decodings, images = decodings.cpu(), images.cpu()      # a GPU would filter in TF32, too coarse for SSIM's variances
        if min(images.shape[-2:]) >= SSIM_WINDOW:
            scores["val_ssim"] = ssim(decodings, images)
        return {"val_psnr": psnr(decodings, images), **scores}
