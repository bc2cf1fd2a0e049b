"""What a run with [end_to_end] starts from: a trained autoencoder, its images, and a recipe of `train-ae` for its losses."""

from dataclasses import dataclass
from pathlib import Path

from smtool.commands.train.latent_source import STATS_SAMPLES, LatentSource, autoencoder_place, images_behind
from smtool.commands.train.run_folder import RunFolder
from smtool.data import ImageShards, measure_latents, open_images
from smtool.errors import CheckpointError, RecipeError, WeightsError
from smtool.image_shape import ImageSize
from smtool.networks.posterior import LatentStats
from smtool.networks.trainable import AutoencoderConfig, DiffusionAutoencoder, TrainableAutoencoder
from smtool.recipe import Data, Recipe, TrainAE, TrainDiT
from smtool.recipe.problems import raise_problems
from smtool.recipe.train_ae import Validation
from smtool.tokenizers.trainable import open_trainable
from smtool.training.distributed import Ranks, first_rank_ahead

SOURCE = "autoencoder of latents.autoencoder"
_GRID = 8
_OWN = ("regularizers", "perceptual", "discriminator", "reconstruction")
"""Tables of `train-ae` that [end_to_end] has."""


@dataclass(frozen=True)
class JointSource:
    """original: the autoencoder as given, frozen, on the CPU; name: as in the recipe; data: source of the images.

    tables: the recipe of `train-ae` with the losses of [end_to_end].
    """

    name: str
    original: TrainableAutoencoder
    data: str
    images: ImageShards
    tables: TrainAE

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a latent."""
        return self.original.latent_shape(*self.images.image_size)

    @property
    def sources(self) -> dict[str, str]:
        return {SOURCE: self.original.digest}

    def first_stats(self, autoencoder: TrainableAutoencoder, *, flip: bool, workers: int) -> LatentStats:
        """Mean and std per channel of sampled latents of the first images, encoded by a copy of `original` on its device."""
        return measure_latents(
            self.images, autoencoder, kind="channel", count=STATS_SAMPLES, flip=flip, batch=32, workers=workers
        )

    def at(self, autoencoder: TrainableAutoencoder, stats: LatentStats, place: str) -> LatentSource:
        """The latents of the autoencoder at some step, stored at `place`."""
        return LatentSource(autoencoder, place, self.data, self.images, None, stats)


def open_joint_source(recipe: Recipe[TrainDiT], folder: RunFolder, ranks: Ranks, weights_dir: Path | None) -> JointSource:
    """Open the autoencoder and its images, and check the losses of [end_to_end] against both.

    Raises CheckpointError for an autoencoder that cannot be trained or has changed since the run was started, and RecipeError for
    losses that do not fit.
    """
    name = recipe.tables.latents.autoencoder
    with first_rank_ahead(ranks):      # which prepares missing images
        place = autoencoder_place(name)
        original = _trainable(recipe, place, weights_dir)
        recorded = folder.recorded(SOURCE)
        if recorded not in (None, original.digest):
            raise CheckpointError(
                f"latents.autoencoder: the run was started from {name} with another digest, {str(recorded)[:12]}, but it is now "
                f"{original.digest[:12]}.",
                hint="Restore the earlier file, or start over with --fresh.",
            )
        data, image_size = images_behind(recipe, place, original)
        images = open_images(data, "train", image_size=image_size, channels=original.image_channels)
    return JointSource(name, original, data, images, _autoencoder_tables(recipe, original, data, images))


def _trainable(recipe: Recipe[TrainDiT], place: str, weights_dir: Path | None) -> TrainableAutoencoder:
    try:
        original = open_trainable(place, weights_dir=weights_dir)
    except (CheckpointError, WeightsError) as error:
        where = "latents.autoencoder: [end_to_end] needs an autoencoder that can be trained"
        raise type(error)(f"{where}: {error.message}", hint=error.hint) from error
    if isinstance(original, DiffusionAutoencoder) or not original.config.has_trained_encoder:
        found = "decodes by diffusion" if isinstance(original, DiffusionAutoencoder) else "has a frozen encoder"
        raise RecipeError(
            f"{recipe.path}: latents.autoencoder: {place} {found}, so that it cannot be trained end to end.",
            hint="Use an SD-VAE, DC-AE or TAESD, or leave out [end_to_end].",
        )
    return original


def _autoencoder_tables(recipe: Recipe[TrainDiT], original: TrainableAutoencoder, data: str, images: ImageShards) -> TrainAE:
    """The recipe of `train-ae` that has the losses of [end_to_end]. Raises RecipeError if it is invalid."""
    joint = recipe.tables.end_to_end
    assert joint is not None
    known = original.recipe.get("data", {})
    validation = joint.validation or (known.get("validation", "") if known.get("train") == data else "")
    made = joint_tables(recipe.tables, original.config, data, images.image_size, validation)
    raise_problems(
        recipe.path,
        [f"{'end_to_end.' if key.startswith(_OWN) else ''}{key}: {sentence}" for key, sentence in made.problems()],
    )
    return made


def joint_tables(tables: TrainDiT, model: AutoencoderConfig, data: str, image_size: ImageSize, validation: str = "") -> TrainAE:
    """The recipe of `train-ae` that has the losses of [end_to_end], for an autoencoder and its images; not checked."""
    joint = tables.end_to_end
    assert joint is not None
    return TrainAE(
        seed=tables.seed,
        steps=tables.steps,
        precision=tables.precision,
        accumulate=tables.accumulate,
        memory=tables.memory,
        optimizer=joint.optimizer or tables.optimizer,
        data=Data(
            train=data, validation=validation, image_size=image_size, batch=tables.data.batch, flip=tables.data.flip,
            workers=tables.data.workers,
        ),
        model=model.model_copy(update={"init": ""}),
        reconstruction=joint.reconstruction,
        perceptual=joint.perceptual,
        discriminator=joint.discriminator.table if joint.discriminator else None,
        regularizers=joint.regularizers,
        validation=Validation(num_images=tables.validation.num_images, grid=min(_GRID, tables.validation.num_images)),
    )
