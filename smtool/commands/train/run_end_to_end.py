"""Assembly of a `train-dit` run with [end_to_end]: the autoencoder, its discriminator and the transformer train together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from smtool.checkpoints.autoencoder import write_autoencoder
from smtool.commands.train.aligned import Aligned, assemble_alignment
from smtool.commands.train.comparison import compare
from smtool.commands.train.initial_weights import start_from
from smtool.commands.train.joint_source import JointSource, open_joint_source
from smtool.commands.train.loss_weights import loss_weights
from smtool.commands.train.lpips_precision import set_lpips_precision
from smtool.commands.train.observe_diffusion import DiffusionObserver
from smtool.commands.train.run import Run, assemble_training, check_batch, newest, result_of
from smtool.commands.train.run_autoencoder import begin_from_init, build_task
from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.teacher_precision import set_precision
from smtool.commands.train.teacher_summary import teacher_summary
from smtool.commands.train.transformer import build_network, count_classes, current_model, refuse_more_channels
from smtool.commands.train.validate import Validator
from smtool.data import image_batches
from smtool.features.frozen import frozen_digests
from smtool.inference.diffusion_model import DiffusionModel, write_diffusion
from smtool.networks.compiling import compile_each
from smtool.networks.latent_norm import LatentNorm
from smtool.networks.recompute import recompute_activations
from smtool.networks.trainable import TrainableAutoencoder
from smtool.networks.transformer import LatentTransformer
from smtool.recipe import Recipe, TrainDiT
from smtool.report.trackers import Trackers
from smtool.tasks.diffusion import PLAYER, DiffusionTask
from smtool.tasks.end_to_end import AUTOENCODER, DISCRIMINATOR, EndToEndTask
from smtool.training.distributed import Ranks
from smtool.training.loop import Training
from smtool.training.selection import evaluating

NORMALIZED_BY = "running statistics of BatchNorm"


def end_to_end_run(recipe: Recipe[TrainDiT], folder: RunFolder, ranks: Ranks, weights_dir: Path | None) -> Run:
    """Open the autoencoder and its images, build the other networks, and load the newest checkpoint if there is one."""
    tables = recipe.tables
    check_batch(recipe, tables.data.batch, ranks)
    source = open_joint_source(recipe, folder, ranks, weights_dir)
    refuse_more_channels(recipe, source.shape[0])
    network = build_network(recipe, source.shape, count_classes(tables, source.images), ranks.device)
    if tables.memory == "checkpoint":
        recompute_activations(network)
    aligned = assemble_alignment(tables, network, source.images, folder, ranks.device, weights_dir)
    assert aligned is not None, "checked when the recipe is loaded"
    task = _task(recipe, source, network, aligned, ranks, weights_dir)
    taught = set_precision(tables, [task.diffusion.teacher, *task.players.values()], folder, ranks.device)
    judged = set_lpips_precision(tables, source.tables.perceptual, task.autoencoding.perceptual, folder, ranks.device)
    start: list[str] = []
    if not folder.has_checkpoint:
        start += begin_from_init(task.autoencoding, source.tables, source.images)
        if tables.model.init:
            start.append(start_from(network, tables.model.init, kind=tables.model.kind, heads=tables.model.heads))
        measured = source.first_stats(
            task.autoencoding.autoencoder, flip=tables.data.flip, workers=tables.data.workers
        )
        task.norm.start_from(measured)
    training = _training(recipe, task, source, aligned, ranks)
    training, checkpoints, first_step = newest(folder, tables, training)
    if tables.compile:
        compile_each(task.diffusion.regions)
    results = _Results(tables, training, source, folder.autoencoder)
    data, (low, high) = tables.data, ranks.local_slice(tables.data.batch)

    def export(step: int) -> None:
        model = results.model(step)
        metadata = {
            "recipe": source.tables.model_dump(mode="json", exclude_none=True), "step": step, "data": source.images.digest,
            "weights": "last", "learned_from": list(model.autoencoder.learned_from),
        }
        write_autoencoder(folder.autoencoder, results.autoencoder, metadata)
        write_diffusion(folder.ckpt, model, recipe=recipe.resolved())

    def conclude(observer: EndToEndObserver, trackers: Trackers) -> list[str]:
        found = compare(
            observer.reconstructions, source.name, source.original, results.autoencoder,
            folder=folder.path, trackers=trackers, step=tables.steps,
        )
        return [found.line()]

    return Run(
        recipe,
        folder,
        checkpoints,
        training,
        player=PLAYER,
        batches=lambda first: image_batches(
            source.images, seed=tables.seed, batch=data.batch, first=first, start=low, stop=high, workers=data.workers,
            flip=data.flip, features=aligned.cache, pin=ranks.on_gpu,
        ),
        observer=lambda: EndToEndObserver(
            DiffusionObserver(tables, source.images, results.model, ranks, weights_dir, {}),
            Validator(source.tables, ranks, task.autoencoding.perceptual, lambda: results.autoencoder),
            results,
        ),
        export=export,
        summary=(
            f"{len(source.images):,} images of {source.images.image_size.words}, latents {source.shape}, {data.batch} a step",
            f"{network.num_classes} classes" if network.num_classes else "unconditional",
            f"the autoencoder starts from {source.name} ({source.original.architecture}, digest {source.original.digest[:12]}) "
            "and trains together with the transformer",
            *start,
            *taught.lines,
            *judged.lines,
            *teacher_summary(aligned, source.images, flip=data.flip),
        ),
        first_step=first_step,
        sources={**source.sources, "features": aligned.source, **taught.sources, **judged.sources},
        conclude=conclude,
        autoencoder=source.tables,
    )


@dataclass(frozen=True)
class EndToEndObserver:
    """Validates both networks: reconstructions and spectra of the autoencoder, samples of the transformer."""

    samples: DiffusionObserver
    reconstructions: Validator
    results: "_Results"

    def share(self, step: int) -> dict[str, Tensor]:
        rows = self.reconstructions.share(step)
        with evaluating(self.results.autoencoder):
            return rows | self.samples.share(step)

    def look(self, trackers: Trackers, step: int, rows: Mapping[str, Tensor]) -> dict[str, float]:
        return self.reconstructions.look(trackers, step, rows) | self.samples.look(trackers, step, rows)


@dataclass(frozen=True)
class _Results:
    """The networks of a run as they are validated and exported: the last weights of the autoencoder, and the averages (if there
    are any) of the transformer and of the running statistics. place: where the autoencoder is written."""

    tables: TrainDiT
    training: Training
    source: JointSource
    place: Path

    @property
    def autoencoder(self) -> TrainableAutoencoder:
        """With the statistics and the names of frozen networks in its losses, for its files."""
        found = cast(TrainableAutoencoder, self.training.task.players[AUTOENCODER].get_submodule("autoencoder"))
        norm = cast(LatentNorm, result_of(self.training, PLAYER).get_submodule("latent_norm"))
        found.stats = norm.stats(NORMALIZED_BY)
        found.learned_from = tuple(sorted({*self.tables.learned_from(), *self.source.original.learned_from}))
        return found

    def model(self, step: int) -> DiffusionModel:
        autoencoder = self.autoencoder
        assert autoencoder.stats is not None
        weights = self.tables.loss.weights
        return current_model(
            self.tables, self.training, self.source.at(autoencoder, autoencoder.stats, str(self.place)), step,
            weights=None if isinstance(weights, str) else weights,
        )


def _task(
    recipe: Recipe[TrainDiT],
    source: JointSource,
    network: LatentTransformer,
    aligned: Aligned,
    ranks: Ranks,
    weights_dir: Path | None,
) -> EndToEndTask:
    tables = recipe.tables
    assert tables.end_to_end is not None
    autoencoding = build_task(source.tables, ranks.device, weights_dir, source.original)
    norm = LatentNorm(source.shape[0], momentum=tables.end_to_end.momentum, eps=tables.end_to_end.eps).to(ranks.device)
    diffusion = DiffusionTask(
        network,
        tables.process.build(source.shape),
        norm.stats(NORMALIZED_BY),
        labels=tables.labels,
        alignment=aligned.weighted,
        teacher=aligned.teacher if aligned.cache is None else None,
        channel_weights=loss_weights(recipe, source.at(source.original, norm.stats(NORMALIZED_BY), source.name), resumed=None),
        cosine=tables.loss.cosine,
    )
    return EndToEndTask(autoencoding, diffusion, norm, weight=tables.end_to_end.alignment_weight)


def _training(
    recipe: Recipe[TrainDiT], task: EndToEndTask, source: JointSource, aligned: Aligned, ranks: Ranks
) -> Training:
    """With optimizers of all players, and an average of the transformer only."""
    tables, autoencoder = recipe.tables, source.tables
    discriminator = autoencoder.discriminator.optimizer if autoencoder.discriminator else None
    perceptual = task.autoencoding.perceptual
    return assemble_training(
        recipe,
        task,
        ranks,
        batch=tables.data.batch,
        averaged=PLAYER,
        optimizers={
            AUTOENCODER: autoencoder.optimizer,
            DISCRIMINATOR: discriminator or autoencoder.optimizer,
            PLAYER: tables.optimizer,
        },
        frozen=frozen_digests(
            aligned.teacher if aligned.cache is None else None, perceptual[0] if perceptual else None, *task.players.values()
        ),
    )
