"""Assembly of a `train-dit` run: latents, transformer, alignment, newest checkpoint."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from smtool.commands.train.aligned import Aligned, assemble_alignment
from smtool.commands.train.initial_weights import start_from
from smtool.commands.train.latent_source import LatentSource, open_latent_source
from smtool.commands.train.loss_weights import loss_weights, weights_line
from smtool.commands.train.observe_diffusion import DiffusionObserver
from smtool.commands.train.run import Run, assemble_training, check_batch, newest
from smtool.commands.train.run_end_to_end import end_to_end_run
from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.teacher_precision import set_precision
from smtool.commands.train.teacher_summary import teacher_summary
from smtool.commands.train.transformer import build_network, count_classes, current_model, refuse_more_channels
from smtool.data import LatentBatch
from smtool.data.latents.check import check_latents
from smtool.features.frozen import frozen_digests
from smtool.inference.diffusion_model import DiffusionModel, write_diffusion
from smtool.networks.compiling import compile_each
from smtool.networks.recompute import recompute_activations
from smtool.networks.transformer import LatentTransformer
from smtool.recipe import Recipe, TrainDiT
from smtool.tasks.diffusion import PLAYER, DiffusionTask
from smtool.training.distributed import Ranks
from smtool.training.loop import Training

CHECKED_SAMPLES = 256


def diffusion_run(recipe: Recipe[TrainDiT], folder: RunFolder, ranks: Ranks, weights_dir: Path | None) -> Run:
    """Open latents and data, build the transformer from the recipe's seed, and load the newest checkpoint if there is one.

    With an [end_to_end] table, the run trains the autoencoder too (`end_to_end_run`).
    """
    tables = recipe.tables
    if tables.end_to_end is not None:
        return end_to_end_run(recipe, folder, ranks, weights_dir)
    check_batch(recipe, tables.data.batch, ranks)
    resumed = folder.ckpt if folder.has_checkpoint else None
    source = open_latent_source(recipe, ranks, resumed=resumed)
    weights = loss_weights(recipe, source, resumed=resumed)
    refuse_more_channels(recipe, source.shape[0])
    network = build_network(recipe, source.shape, count_classes(tables, source.images), ranks.device)
    if tables.memory == "checkpoint":
        recompute_activations(network)
    start: tuple[str, ...] = ()
    if tables.model.init and not folder.has_checkpoint:
        start = (start_from(network, tables.model.init, kind=tables.model.kind, heads=tables.model.heads),)
    aligned = assemble_alignment(tables, network, source.images, folder, ranks.device, weights_dir)
    task = _task(tables, network, source, aligned, weights)
    taught = set_precision(tables, [task.teacher], folder, ranks.device)
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
    training, checkpoints, first_step = newest(folder, tables, training)
    if tables.compile:
        compile_each(task.regions)
    if first_step == 0 and ranks.first:
        _check_first(source, tables, ranks)

    def batches(first: int) -> Generator[LatentBatch]:
        taught, features = (False, None) if aligned is None else (aligned.cache is None, aligned.cache)
        return source.batches(tables, ranks, first, with_images=taught, features=features)

    def model(step: int) -> DiffusionModel:
        return current_model(tables, training, source, step, weights=weights)

    return Run(
        recipe,
        folder,
        checkpoints,
        training,
        player=PLAYER,
        batches=batches,
        observer=lambda: DiffusionObserver(tables, source.images, model, ranks, weights_dir, _floors(tables, source)),
        export=lambda step: write_diffusion(folder.ckpt, model(step), recipe=recipe.resolved()),
        summary=(
            *_summary(tables, training, source),
            *source.remarks,
            *((weights_line(weights, source, measured=tables.loss.weights == "entropy"),) if weights else ()),
            *start,
            *taught.lines,
            *(teacher_summary(aligned, source.images, flip=tables.data.flip) if aligned else ()),
        ),
        first_step=first_step,
        sources={**({"features": aligned.source} if aligned else {}), **taught.sources},
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


def _floors(tables: TrainDiT, source: LatentSource) -> dict[str, float]:
    """Floors of the logged losses; with weights of channels only those of the bands, which are logged without weights."""
    floors = source.floors(tables.process)
    return floors if tables.loss.weights == "uniform" else {name: floor for name, floor in floors.items() if "band" in name}


def _check_first(source: LatentSource, tables: TrainDiT, ranks: Ranks) -> None:
    """Check the first latents of a new run against their images and statistics, without the warm-up's low-pass."""
    count = -(-CHECKED_SAMPLES // (tables.data.batch // ranks.world))
    with closing(source.batches(tables.model_copy(update={"warmup": None}), ranks, 0, with_images=True)) as checked:
        check_latents(list(islice(checked, count)), source.stats, source.autoencoder)


def _summary(tables: TrainDiT, training: Training, source: LatentSource) -> Iterator[str]:
    """Lines for the log: latents, images, classes, sharding."""
    origin = "encoded while training" if source.cache is None else f"from {source.cache.folder}"
    yield f"latents {source.shape} of {len(source.images):,} images, {tables.data.batch} a step, {origin}"
    if (filtered := source.stats.recolouring) is not None:
        yield (
            f"latents recoloured to flatten = {filtered.flatten}: gains {filtered.cell_gains.min():.3g} to "
            f"{filtered.cell_gains.max():.3g}" + (f", {filtered.num_limited} limited" if filtered.num_limited else "")
        )
    num_classes = count_classes(tables, source.images)
    yield f"{num_classes} classes" if num_classes else "unconditional"
    if training.copies:
        yield f"the transformer is sharded over {training.ranks.world} ranks"
