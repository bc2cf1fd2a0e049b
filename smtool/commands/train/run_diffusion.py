"""Assembly of a `train-dit` run: latents, transformer, alignment, newest checkpoint."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import cast

from smtool.commands.train.aligned import Aligned, assemble_alignment
from smtool.commands.train.initial_weights import start_from
from smtool.commands.train.latent_source import LatentSource, open_latent_source
from smtool.commands.train.loss_weights import loss_weights, weights_line
from smtool.commands.train.observe_diffusion import DiffusionObserver
from smtool.commands.train.run import Run, assemble_training, check_batch, newest, result_of
from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.teacher_summary import teacher_summary
from smtool.data import ImageShards, LatentBatch
from smtool.data.latents.check import check_latents
from smtool.errors import DataError, RecipeError
from smtool.features.frozen import frozen_digests
from smtool.inference.diffusion_model import DiffusionModel, write_diffusion
from smtool.networks.recompute import recompute_activations
from smtool.networks.transformer import LatentTransformer
from smtool.randomness import initializing
from smtool.recipe import Recipe, TrainDiT
from smtool.tasks.diffusion import PLAYER, DiffusionTask
from smtool.training.distributed import Ranks
from smtool.training.loop import Training

CHECKED_SAMPLES = 256


def diffusion_run(recipe: Recipe[TrainDiT], folder: RunFolder, ranks: Ranks, weights_dir: Path | None) -> Run:
    """Open latents and data, build the transformer from the recipe's seed, and load the newest checkpoint if there is one."""
    tables = recipe.tables
    check_batch(recipe, tables.data.batch, ranks)
    resumed = folder.ckpt if folder.has_checkpoint else None
    source = open_latent_source(recipe, ranks, resumed=resumed)
    weights = loss_weights(recipe, source, resumed=resumed)
    _refuse_more_channels(recipe, source.shape[0])
    network = _network(recipe, source.shape, _num_classes(tables, source.images), ranks.device)
    if tables.memory == "checkpoint":
        recompute_activations(network)
    start: tuple[str, ...] = ()
    if tables.model.init and not folder.has_checkpoint:
        start = (start_from(network, tables.model.init, kind=tables.model.kind, heads=tables.model.heads),)
    aligned = assemble_alignment(tables, network, source.images, folder, ranks.device, weights_dir)
    task = _task(tables, network, source, aligned, weights)
    training = assemble_training(
        recipe,
        task,
        ranks,
        batch=tables.data.batch,
        averaged=PLAYER,
        optimizers={PLAYER: tables.optimizer},
        frozen=frozen_digests(task.teacher, *task.players.values()),
        parallel=tables.parallel,
    )
    checkpoints, first_step = newest(folder, tables, training)
    if tables.compile:
        network.compile()
    if first_step == 0 and ranks.first:
        _check_first(source, tables, ranks)

    def batches(first: int) -> Generator[LatentBatch]:
        taught, features = (False, None) if aligned is None else (aligned.cache is None, aligned.cache)
        return source.batches(tables, ranks, first, with_images=taught, features=features)

    def model(step: int) -> DiffusionModel:
        return _model(tables, training, source, weights, step)

    return Run(
        recipe,
        folder,
        checkpoints,
        training,
        player=PLAYER,
        batches=batches,
        observer=lambda: DiffusionObserver(
            tables, source.images, model, ranks.device, weights_dir, _floors(tables, source)
        ),
        export=lambda step: write_diffusion(folder.ckpt, model(step), recipe=recipe.resolved()),
        summary=(
            *_summary(tables, training, source),
            *source.remarks,
            *((weights_line(weights, source, measured=tables.loss.weights == "entropy"),) if weights else ()),
            *start,
            *(teacher_summary(aligned, source.images, flip=tables.data.flip) if aligned else ()),
        ),
        first_step=first_step,
        sources={"features": aligned.source} if aligned else {},
    )


def _task(
    tables: TrainDiT,
    network: LatentTransformer,
    source: LatentSource,
    aligned: Aligned | None,
    weights: tuple[float, ...] | None,
) -> DiffusionTask:
    return DiffusionTask(
        network,
        tables.process.build(source.shape),
        source.stats,
        labels=tables.labels,
        alignment=aligned.weighted if aligned else None,
        teacher=aligned.teacher if aligned and aligned.cache is None else None,
        channel_weights=weights,
        prefixes=tables.channel_prefix,
        cosine=tables.loss.cosine,
    )


def _refuse_more_channels(recipe: Recipe[TrainDiT], channels: int) -> None:
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


def _floors(tables: TrainDiT, source: LatentSource) -> dict[str, float]:
    """Floors of the logged losses; with weights of channels only those of the bands, which are logged without weights."""
    floors = source.floors(tables.process)
    return floors if tables.loss.weights == "uniform" else {name: floor for name, floor in floors.items() if "band" in name}


def _check_first(source: LatentSource, tables: TrainDiT, ranks: Ranks) -> None:
    """Check the first latents of a new run against their images and statistics, without the warm-up's low-pass."""
    count = -(-CHECKED_SAMPLES // (tables.data.batch // ranks.world))
    with closing(source.batches(tables.model_copy(update={"warmup": None}), ranks, 0, with_images=True)) as checked:
        check_latents(list(islice(checked, count)), source.stats, source.autoencoder)


def _model(
    tables: TrainDiT, training: Training, source: LatentSource, weights: tuple[float, ...] | None, step: int
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


def _summary(tables: TrainDiT, training: Training, source: LatentSource) -> Iterator[str]:
    """Lines for the log: latents, images, classes, sharding."""
    origin = "encoded while training" if source.cache is None else f"from {source.cache.folder}"
    yield f"latents {source.shape} of {len(source.images):,} images, {tables.data.batch} a step, {origin}"
    if (filtered := source.stats.recolouring) is not None:
        yield (
            f"latents recoloured to flatten = {filtered.flatten}: gains {filtered.cell_gains.min():.3g} to "
            f"{filtered.cell_gains.max():.3g}" + (f", {filtered.num_limited} limited" if filtered.num_limited else "")
        )
    num_classes = _num_classes(tables, source.images)
    yield f"{num_classes} classes" if num_classes else "unconditional"
    if training.copies:
        yield f"the transformer is sharded over {training.ranks.world} ranks"


def _num_classes(tables: TrainDiT, images: ImageShards) -> int:
    if tables.labels is None:
        return 0
    if not images.num_classes:
        raise DataError(f"{images.folder} has no classes, but the recipe has a [labels] table.", hint="--set labels= removes it.")
    return images.num_classes


def _network(recipe: Recipe[TrainDiT], shape: tuple[int, int, int], num_classes: int, device: str) -> LatentTransformer:
    try:
        with initializing(recipe.tables.seed, PLAYER):
            return recipe.tables.model.build(shape, num_classes).to(device)
    except ValueError as error:
        raise RecipeError(f"{recipe.path}: model: {error}") from error
