"""The tables of a `train-ae` recipe, and the checks that involve several tables."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, SerializeAsAny

from smtool.config import Config
from smtool.features.perceptual import Perceptual
from smtool.image_shape import ImageSize
from smtool.networks import AnyAutoencoder
from smtool.networks.rae import RAE
from smtool.networks.shapes_only import shapes_only
from smtool.networks.trainable import ENCODER
from smtool.recipe.images import Data
from smtool.recipe.initial import completed_by_encoder, completed_by_init
from smtool.recipe.selection import ALL, selection_problems, trained_names
from smtool.recipe.training import TrainingTables
from smtool.regularizers import Regularizers, Shapes
from smtool.tasks.adversary import Adversary, AnyAdversary
from smtool.tasks.autoencoder import Reconstruction
from smtool.tasks.wavelet import Wavelet

EPSILON_VAE, VELOCITY = "epsilon-vae", "velocity"
_DETERMINISTIC = {"taesd": "TAESD", "dc-ae": "DC-AE", "rae": "RAE"}
"""Kinds of [model] whose latents have no noise, and their names."""


class Validation(Config):
    """Validation, every `evaluate_every` steps."""

    num_images: int = Field(64, ge=1, description="number of validation images to reconstruct and score")
    grid: int = Field(8, ge=1, description="number of them to show as input | reconstruction | difference")


class TrainAE(TrainingTables):
    """A recipe of `smtool train-ae`."""

    data: Data
    model: AnyAutoencoder
    reconstruction: Reconstruction = Reconstruction()
    wavelet: Wavelet | None = None
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
    def same_shapes(self) -> bool:
        return self.regularizers.eq_vae is None      # which draws a size per step

    @property
    def shapes(self) -> Shapes:
        """Shapes of a global batch of prepared images and of its latents."""
        return self.shapes_at(self.data.image_size)

    @property
    def largest_shapes(self) -> Shapes:
        """Shapes of a global batch of the largest training images."""
        return self.shapes_at(max(self.data.training_sizes, key=lambda size: size.height * size.width))

    def shapes_at(self, size: ImageSize) -> Shapes:
        """Shapes of a global batch of images of this size. Raises ValueError if the autoencoder cannot encode it."""
        latent = self.model.latent_shape(*size)
        return Shapes((self.data.batch, self.model.image_channels, *size), (self.data.batch, *latent))

    @classmethod
    def completed(cls, values: dict[str, Any], weights_dir: Path | None = None) -> tuple[dict[str, Any], list[str]]:
        values, problems = completed_by_init(values, weights_dir)
        completed, others = completed_by_encoder(values)
        return _with_velocity(completed), [*problems, *others]

    def learned_from(self) -> list[str]:
        frozen = [self.model.encoder] if isinstance(self.model, RAE) else []
        return sorted({*super().learned_from(), *frozen})

    def problems(self) -> Iterator[tuple[str, str]]:
        """(key, sentence) for every impossible combination of values; checked when the recipe is loaded."""
        if self.data.batch % self.accumulate:
            yield "accumulate", f"{self.accumulate} micro-batches do not divide data.batch = {self.data.batch}"
        yield from self.data.schedule_problems()
        unfit = list(self._unencodable())
        yield from unfit
        if unfit:
            return
        found = [one for size in self.data.training_sizes for one in self._problems_at(self.shapes_at(size))]
        yield from dict.fromkeys(found)      # most are the same at all sizes
        yield from self._idle()
        yield from self._undivided_sizes()

    def _unencodable(self) -> Iterator[tuple[str, str]]:
        for key, sizes in (("data.image_size", (self.data.image_size,)), ("data.sizes", self.data.training_sizes)):
            for size in sizes if key == "data.image_size" or self.data.sizes else ():
                try:
                    self.shapes_at(size)
                except ValueError as error:
                    yield key, str(error)

    def _problems_at(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        """Problems with training images of this size."""
        for name, table in self.regularizers.present.items():
            for key, sentence in table.problems(shapes):
                shown = f'"{name}"' if ":" in name else name
                yield f"regularizers.{shown}.{key}", sentence
        yield from self._too_small(shapes)

    def remarks(self) -> Iterator[str]:
        if self.discriminator and self.discriminator.start >= self.steps:
            start = self.discriminator.start
            yield f"discriminator.start = {start} is not below steps = {self.steps}: the discriminator is never used."
        elif self.discriminator and self.discriminator.entry >= self.steps:
            entry = self.discriminator.entry
            yield f"discriminator.start + alone = {entry} is not below steps = {self.steps}: it never teaches the autoencoder."
        for first, size in self.data.sizes:
            if first >= self.steps:
                yield f"data.sizes: step {first} is not below steps = {self.steps}: {size.words} is never used."
        if self.validation.grid > self.validation.num_images:
            yield f"validation.grid is more than validation.num_images: {self.validation.num_images} images are shown."
        yield from super().remarks()

    def _idle(self) -> Iterator[tuple[str, str]]:
        """Parts that do not exist, and terms without effect on what trains."""
        if self.train != ALL or self.lr_multipliers:
            yield from selection_problems(self.model, self.train, self.lr_multipliers)
        if not self.trains_encoder:
            chosen = f"train = {self.train!r}" if self.model.has_trained_encoder else f'model.kind = "{self.model.kind}"'
            for name, table in self.regularizers.present.items():
                if table.only_encoder and not (name == "kl" and not self.model.has_trained_encoder):
                    yield f"regularizers.{name}", f"has no effect with {chosen}, because the encoder is frozen"
        if self.regularizers.kl and self.model.kind in _DETERMINISTIC:
            network = _DETERMINISTIC[self.model.kind]
            yield "regularizers.kl", f"cannot be used: {network} is deterministic, so its posterior has no variance"
        if self.perceptual and self.perceptual.precision == "bf16" and self.precision == "fp32":
            yield "perceptual.precision", 'cannot be "bf16" with precision = "fp32"; use "auto", or precision = "bf16"'
        if self.regularizers.uae and not self.model.has_trained_encoder:
            yield "regularizers.uae", f"cannot be used with {chosen}: it aligns latents, but the encoder is frozen"
        yield from self._unsuited_latents()
        yield from self._unsuited_loss()

    def _unsuited_loss(self) -> Iterator[tuple[str, str]]:
        """A pixel loss of another kind of decoder than the model's."""
        velocity, table = self.model.kind == EPSILON_VAE, self.reconstruction
        if velocity and table.loss != VELOCITY:
            yield "reconstruction.loss", (
                f'must be "velocity" for model.kind = "epsilon-vae", whose decoder is trained to denoise, but is "{table.loss}"; '
                "leave it out"
            )
        elif not velocity and table.loss == VELOCITY:
            yield "reconstruction.loss", 'needs a decoder that denoises, model.kind = "epsilon-vae"; use "l1" or "l2"'
        elif not velocity and table.time != "uniform":
            yield "reconstruction.time", 'has an effect only for model.kind = "epsilon-vae"; leave it out'

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
        if self.wavelet and side < self.wavelet.smallest_input:
            fits = f"levels = {side.bit_length() - 1}, or " if side > 1 else ""
            yield "wavelet.levels", _smallest_pair(
                side, f"a Haar transform of {self.wavelet.levels} levels", self.wavelet.smallest_input, scale, shapes, fits
            )


def _with_velocity(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the pixel loss of an epsilon-VAE, where the recipe has such a model and leaves the loss out."""
    model, table = values.get("model"), values.get("reconstruction", {})
    if isinstance(model, Mapping) and model.get("kind") == EPSILON_VAE and isinstance(table, Mapping):
        return {**values, "reconstruction": {"loss": VELOCITY, **table}}
    return values


def _smallest_pair(side: int, network: str, needed: int, scale: float, shapes: Shapes, fits: str) -> str:
    full = min(shapes.images[-2:])
    scales = f"scales of at least {needed / full:.3g}" if scale < 1 and full >= needed else f"images of at least {needed} px"
    return f"the smallest pair is {side} px, but {network} needs {needed}; use {fits}{scales}"
