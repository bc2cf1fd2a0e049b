"""The tables of a `train-ae` recipe, and the checks that involve several tables."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field, PositiveFloat, SerializeAsAny

from smtool.config import Config
from smtool.features.perceptual import Perceptual
from smtool.image_shape import ImageSize
from smtool.networks import AnyAutoencoder
from smtool.networks.rae import RAE
from smtool.networks.shapes_only import shapes_only
from smtool.networks.trainable import ENCODER
from smtool.recipe.initial import completed_by_encoder, completed_by_init
from smtool.recipe.selection import ALL, selection_problems, trained_names
from smtool.recipe.training import TrainingTables
from smtool.regularizers import Regularizers, Shapes
from smtool.tasks.adversary import Adversary, AnyAdversary
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
    max_bad: float = Field(
        0.01, ge=0, le=1, description="largest fraction of unreadable images when images are prepared; more are an error"
    )


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
    discriminator: AnyAdversary | None = None
    train: str | tuple[str, ...] = Field(
        "all",
        description='what to train: "all", "encoder", "decoder", "last-layers" (of the decoder, after its last upsampling), or a '
        'list of these and of patterns of parameter names, such as ["decoder.up_blocks.3.*"]',
    )
    lr_multipliers: dict[str, PositiveFloat] = Field(
        {}, description="part (as in `train`) = factor of optimizer.lr; a later part overrides earlier ones"
    )
    regularizers: SerializeAsAny[Regularizers] = Regularizers()
    validation: Validation = Validation()

    @property
    def trains_encoder(self) -> bool:
        """Whether any parameter of the encoder trains, so that latents change."""
        if not self.model.has_trained_encoder:
            return False
        if self.train in (ALL, ENCODER):
            return True
        with shapes_only():
            network = self.model.build()
        return bool(trained_names(network, self.train) & set(network.part(ENCODER)))

    @property
    def shapes(self) -> Shapes:
        """Shapes of a global batch and of its latents."""
        size = self.data.image_size
        latent = self.model.latent_shape(*size)
        return Shapes((self.data.batch, self.model.image_channels, *size), (self.data.batch, *latent))

    @classmethod
    def completed(cls, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        values, problems = completed_by_init(values)
        completed, others = completed_by_encoder(values)
        return completed, [*problems, *others]

    def learned_from(self) -> list[str]:
        frozen = [self.model.encoder] if isinstance(self.model, RAE) else []
        return sorted({*super().learned_from(), *frozen})

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
        yield from self._idle(shapes)
        yield from self._undivided_sizes()
        yield from self._too_small(shapes)

    def remarks(self) -> Iterator[str]:
        if self.discriminator and self.discriminator.start >= self.steps:
            start = self.discriminator.start
            yield f"discriminator.start = {start} is not below steps = {self.steps}: the discriminator is never used."
        elif self.discriminator and self.discriminator.entry >= self.steps:
            entry = self.discriminator.entry
            yield f"discriminator.start + alone = {entry} is not below steps = {self.steps}: it never teaches the autoencoder."
        if self.validation.grid > self.validation.num_images:
            yield f"validation.grid is more than validation.num_images: {self.validation.num_images} images are shown."
        yield from super().remarks()

    def _idle(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        """Parts that do not exist, and terms without effect on what trains."""
        if self.train != ALL or self.lr_multipliers:
            yield from selection_problems(self.model, self.train, self.lr_multipliers)
        if not self.trains_encoder:
            chosen = f"train = {self.train!r}" if self.model.has_trained_encoder else f'model.kind = "{self.model.kind}"'
            for name, table in self.regularizers.present.items():
                if table.only_encoder and not (name == "kl" and not self.model.has_trained_encoder):
                    yield f"regularizers.{name}", f"has no effect with {chosen}, because the encoder is frozen"
        if self.regularizers.kl and self.model.kind in ("taesd", "rae"):
            network = self.model.kind.upper()
            yield "regularizers.kl", f"cannot be used: {network} is deterministic, so its posterior has no variance"
        if self.regularizers.uae and not self.model.has_trained_encoder:
            yield "regularizers.uae", f"cannot be used with {chosen}: it aligns latents, but the encoder is frozen"
        yield from self._unsuited_latents()

    def _unsuited_latents(self) -> Iterator[tuple[str, str]]:
        """Noise on latents that are not normalized as it needs, and KL of normalized latents."""
        noise, normalized = self.regularizers.latent_noise, getattr(self.model, "latent_norm", "none") == "channels"
        if noise and noise.kind == "nextstep" and not normalized:
            yield "regularizers.latent_noise.kind", (
                '"nextstep" needs latents that are normalized over channels, also after training; use a model of kind "sd-vae" '
                'with model.latent_norm = "channels"'
            )
        if noise and self.regularizers.uae:
            sentence = "cannot be used with uae, which needs latents without noise, and has a noise of its own"
            yield "regularizers.latent_noise", sentence
        if self.regularizers.dsm and self.regularizers.uae and self.regularizers.uae.low_pass > 0:
            sentence = "must be 0 with dsm: uae decodes low-passed latents to whole images, dsm to equally low-passed ones"
            yield "regularizers.uae.low_pass", sentence
        if self.regularizers.kl and normalized:
            sentence = 'cannot be used: with model.latent_norm = "channels" the posterior has no variance'
            yield "regularizers.kl", sentence
        if self.model.kind == "sd-vae" and normalized and self.model.latent_channels < 2:
            yield "model.latent_norm", '"channels" needs at least 2 latent channels: one normalized number is always 0'

    def _undivided_sizes(self) -> Iterator[tuple[str, str]]:
        if self.regularizers.eq_vae is None or self.regularizers.eq_vae.prior == 0:
            return
        if self.regularizers.dsm:
            yield "regularizers.eq_vae.prior", "must be 0 with dsm: it draws image sizes that the blocks of dsm do not divide"
        if self.regularizers.local_correlation:
            sentence = "must be 0 with local_correlation: it draws image sizes with latents that windows of 2x2 do not fill"
            yield "regularizers.eq_vae.prior", sentence

    def _too_small(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        scale = 1.0
        for table in self.regularizers.present.values():
            scale *= table.smallest_scale(shapes)
        side = round(min(shapes.images[-2:]) * scale)
        if isinstance(self.discriminator, Adversary) and side < self.discriminator.smallest_input:
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
