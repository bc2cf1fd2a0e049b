"""Parts that the runs of train-dit share: the transformer, its classes, and the current result."""

from typing import cast

from smtool.commands.train.latent_source import LatentSource
from smtool.commands.train.run import result_of
from smtool.data import ImageShards
from smtool.errors import DataError, RecipeError
from smtool.inference.diffusion_model import DiffusionModel
from smtool.networks.transformer import LatentTransformer
from smtool.randomness import initializing
from smtool.recipe import Recipe, TrainDiT
from smtool.tasks.diffusion import PLAYER
from smtool.training.loop import Training


def build_network(recipe: Recipe[TrainDiT], shape: tuple[int, int, int], num_classes: int, device: str) -> LatentTransformer:
    try:
        with initializing(recipe.tables.seed, PLAYER):
            return recipe.tables.model.build(shape, num_classes).to(device)
    except ValueError as error:
        raise RecipeError(f"{recipe.path}: model: {error}") from error


def count_classes(tables: TrainDiT, images: ImageShards) -> int:
    if tables.labels is None:
        return 0
    if not images.num_classes:
        raise DataError(f"{images.folder} has no classes, but the recipe has a [labels] table.", hint="--set labels= removes it.")
    return images.num_classes


def refuse_more_channels(recipe: Recipe[TrainDiT], channels: int) -> None:
    """Raise RecipeError for keys that name more channels than the latents have."""
    guided = recipe.tables.sampler.cfg_channels
    if guided > channels:
        raise RecipeError(
            f"{recipe.path}: sampler.cfg_channels: is {guided}, but the latents have {channels} channels.",
            hint=f"Use a number up to {channels}, or 0 for all.",
        )
    table = recipe.tables.channel_prefix
    if table is not None and max(table.lengths) > channels:
        raise RecipeError(
            f"{recipe.path}: channel_prefix.lengths: has {max(table.lengths)}, but the latents have {channels} channels.",
            hint=f"Use numbers up to {channels}.",
        )


def current_model(
    tables: TrainDiT, training: Training, source: LatentSource, step: int, *, weights: tuple[float, ...] | None
) -> DiffusionModel:
    """The current result of a run: the transformer to validate and export, with everything needed for sampling."""
    network = cast(LatentTransformer, result_of(training, PLAYER).get_submodule("network"))
    summary = {
        "step": step,
        "weights": "average" if training.averages else "last",
        "data": source.data,
        "data_digest": source.images.digest,
        "image_size": source.images.image_size.stored,
        "image_channels": source.images.channels,
        "autoencoder_path": source.place,
        "learned_from": tables.learned_from(),
        **({} if weights is None else {"loss_weights": list(weights)}),
    }
    return DiffusionModel(
        tables,
        network,
        tables.process.build(source.shape),
        source.stats,
        source.autoencoder,
        source.shape,
        network.num_classes,
        summary,
    )
