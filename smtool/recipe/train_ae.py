"""The tables of a `train-ae` recipe, and the checks that involve several tables."""

from collections.abc import Iterator

from pydantic import Field, SerializeAsAny

from smtool.config import Config
from smtool.features.perceptual import Perceptual
from smtool.image_shape import ImageSize
from smtool.networks import AnyAutoencoder
from smtool.recipe.training import TrainingTables
from smtool.regularizers import Regularizers, Shapes
from smtool.tasks.adversary import Adversary
from smtool.tasks.autoencoder import Reconstruction


class Data(Config):
    """Images for training and validation."""

    train: str = Field(
        "builtin:photos", description="training images: a prepared folder, raw images, a shard pattern, or builtin:NAME"
    )
    validation: str = Field("", description="images for validation; empty: the validation split of `train`")
    image_size: ImageSize = Field(description="height and width of the images in pixels: one number for squares, else both")
    batch: int = Field(ge=1, description="images per step, over all ranks and micro-batches")
    flip: bool = Field(True, description="mirror each training image with probability 1/2")
    workers: int = Field(2, ge=1, description="threads that read and decode images, per rank")


class Validation(Config):
    """Validation, every `evaluate_every` steps."""

    num_images: int = Field(64, ge=1, description="number of validation images to reconstruct and score")
    grid: int = Field(8, ge=1, description="number of them to show as input | reconstruction | difference")


class TrainAE(TrainingTables):
    """A recipe of `smtool train-ae`."""

    data: Data
    model: AnyAutoencoder
    reconstruction: Reconstruction = Reconstruction()
    perceptual: Perceptual | None = None
    discriminator: Adversary | None = None
    regularizers: SerializeAsAny[Regularizers] = Regularizers()
    validation: Validation = Validation()

    @property
    def shapes(self) -> Shapes:
        """Shapes of a global batch and of its latents."""
        size = self.data.image_size
        latent = self.model.latent_shape(*size)
        return Shapes((self.data.batch, self.model.image_channels, *size), (self.data.batch, *latent))

    def problems(self) -> Iterator[tuple[str, str]]:
        """(key, sentence) for every impossible combination of values; checked when the recipe is loaded."""
        if self.data.batch % self.accumulate:
            yield "accumulate", f"{self.accumulate} micro-batches do not divide data.batch = {self.data.batch}"
        try:
            shapes = self.shapes
        except ValueError as error:
            yield "data.image_size", str(error)
            return
        for name, table in self.regularizers.present.items():
            for key, sentence in table.problems(shapes):
                shown = f'"{name}"' if ":" in name else name
                yield f"regularizers.{shown}.{key}", sentence
        if self.regularizers.dsm and self.regularizers.eq_vae and self.regularizers.eq_vae.prior > 0:
            yield "regularizers.eq_vae.prior", "must be 0 with dsm: it draws image sizes that the blocks of dsm do not divide"
        yield from self._too_small(shapes)

    def remarks(self) -> Iterator[str]:
        if self.discriminator and self.discriminator.start >= self.steps:
            start = self.discriminator.start
            yield f"discriminator.start = {start} is not below steps = {self.steps}: the discriminator is never used."
        if self.validation.grid > self.validation.num_images:
            yield f"validation.grid is more than validation.num_images: {self.validation.num_images} images are shown."
        yield from super().remarks()

    def _too_small(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        scale = 1.0
        for table in self.regularizers.present.values():
            scale *= table.smallest_scale(shapes)
        side = round(min(shapes.images[-2:]) * scale)
        if self.discriminator and side < self.discriminator.smallest_input:
            layers = max(0, (side // 3).bit_length() - 1)
            fits = f"num_layers = {layers}, or " if layers else ""
            yield "discriminator.num_layers", _smallest_pair(
                side, f"a {self.discriminator.num_layers}-layer PatchGAN", self.discriminator.smallest_input, scale, shapes, fits
            )
        if self.perceptual and side < self.perceptual.smallest_input:
            network = f"LPIPS with {self.perceptual.net}"
            yield "perceptual.net", _smallest_pair(side, network, self.perceptual.smallest_input, scale, shapes, "")


def _smallest_pair(side: int, network: str, needed: int, scale: float, shapes: Shapes, fits: str) -> str:
    full = min(shapes.images[-2:])
    scales = f"scales of at least {needed / full:.3g}" if scale < 1 and full >= needed else f"images of at least {needed} px"
    return f"the smallest pair is {side} px, but {network} needs {needed}; use {fits}{scales}"
