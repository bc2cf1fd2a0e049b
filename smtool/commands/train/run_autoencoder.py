"""Assembly of a `train-ae` run: data, networks, newest checkpoint."""

from pathlib import Path
from typing import cast

from smtool.checkpoints.autoencoder import write_autoencoder
from smtool.commands.train.comparison import compare
from smtool.commands.train.discriminator import start_discriminator
from smtool.commands.train.latent_statistics import describe_latents, statistics_line
from smtool.commands.train.lpips_precision import set_lpips_precision
from smtool.commands.train.run import Run, assemble_training, check_batch, newest, result_of
from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.start import SOURCE, open_start, rate_factors, select_trained, start_lines
from smtool.commands.train.teacher_precision import set_precision
from smtool.commands.train.validate import Validator
from smtool.data import ImageShards, open_images, training_batches
from smtool.data.images.jpeg_on_gpu import refuse_undecodable
from smtool.devices import image_layout
from smtool.features.encoder import supply_encoder
from smtool.features.frozen import frozen_digests
from smtool.features.trunk import supply_trunk
from smtool.networks.recompute import recompute_activations
from smtool.networks.trainable import TrainableAutoencoder
from smtool.randomness import initializing
from smtool.recipe import Recipe, TrainAE
from smtool.regularizers import Regularizer
from smtool.report.trackers import Trackers
from smtool.tasks.autoencoder import AutoencoderTask
from smtool.training.distributed import Ranks, first_rank_ahead

PLAYER = "autoencoder"
MEASURED_IMAGES = 256
"""Training images on which regularizers measure constants before the first step."""


def autoencoder_run(recipe: Recipe[TrainAE], folder: RunFolder, ranks: Ranks, weights_dir: Path | None) -> Run:
    """Open the data, build the networks from the recipe's seed, and load the newest checkpoint of the folder if there is one."""
    tables = recipe.tables
    check_batch(recipe, tables.data.batch, ranks)
    with first_rank_ahead(ranks):      # which prepares missing images
        images = open_images(
            tables.data.train, "train", image_size=tables.data.image_size, channels=tables.model.image_channels,
            max_bad=tables.data.max_bad,
        )
    if tables.data.decode == "gpu":
        refuse_undecodable(images.card, ranks.device)
    start = open_start(tables, folder.recorded(SOURCE), weights_dir)
    task = build_task(tables, ranks.device, weights_dir, start.original if start else None)
    taught = set_precision(tables, task.players.values(), folder, ranks.device)
    judged = set_lpips_precision(tables, tables.perceptual, task.perceptual, folder, ranks.device)
    lines = [*start_lines(task.autoencoder, tables, start), *taught.lines, *judged.lines]
    if not folder.has_checkpoint:
        lines += begin_from_init(task, tables, images)
    own = tables.discriminator.optimizer if tables.discriminator else None
    training = assemble_training(
        recipe,
        task,
        ranks,
        batch=tables.data.batch,
        averaged=PLAYER,
        optimizers={PLAYER: tables.optimizer, "discriminator": own or tables.optimizer},
        multipliers={PLAYER: rate_factors(task.autoencoder, tables)},
        frozen=frozen_digests(task.perceptual[0] if task.perceptual else None, *task.players.values()),
    )
    training, checkpoints, first_step = newest(folder, tables, training)
    data, (low, high) = tables.data, ranks.local_slice(tables.data.batch)

    def result() -> TrainableAutoencoder:
        return cast(TrainableAutoencoder, result_of(training, PLAYER).get_submodule("autoencoder"))

    def conclude(observer: Validator, trackers: Trackers) -> list[str]:
        if start is None:
            return []
        found = compare(
            observer, start.name, start.original, result(), folder=folder.path, trackers=trackers, step=tables.steps
        )
        changed = statistics_line(start.original.stats, result().stats)
        return [found.line(), *([changed] if changed else [])]

    def export(step: int) -> None:
        weights = "average" if training.averages else "last"
        metadata = {"recipe": recipe.resolved(), "step": step, "data": images.digest, "weights": weights}
        if start is not None and (step == tables.steps or not tables.trains_encoder):
            metadata |= describe_latents(start, tables, result(), images)
        write_autoencoder(folder.ckpt, result(), {**metadata, "learned_from": tables.learned_from()})

    return Run(
        recipe,
        folder,
        checkpoints,
        training,
        player=PLAYER,
        batches=lambda first: training_batches(
            images, seed=tables.seed, batch=data.batch, first=first, start=low, stop=high, workers=data.workers, pin=ranks.on_gpu,
            jpegs_on=ranks.device if data.decode == "gpu" else "",
        ),
        observer=lambda: Validator(tables, ranks, task.perceptual, result),
        export=export,
        summary=(
            f"{len(images):,} images of {tables.shapes.images[1:]}, {data.batch} a step",
            f"latents {tables.shapes.latents[1:]}",
            *([f"training images: {data.schedule.said}"] if data.schedule else []),
            *lines,
        ),
        first_step=first_step,
        sources={**({} if start is None else start.sources), **taught.sources, **judged.sources},
        conclude=conclude,
    )


def build_task(
    tables: TrainAE, device: str, weights_dir: Path | None, original: TrainableAutoencoder | None = None
) -> AutoencoderTask:
    """Build networks and losses, initialized from the recipe's seed. original: has the initial weights of the autoencoder."""
    layout = image_layout(device, tuple(tables.data.image_size))
    with initializing(tables.seed, PLAYER):
        autoencoder = tables.model.build().to(device).to(memory_format=layout)
    if original is not None:
        autoencoder.load_state_dict(original.state_dict())
    supply_encoder(autoencoder, weights_dir)
    select_trained(autoencoder, tables)
    if tables.memory == "checkpoint":
        recompute_activations(autoencoder)
    methods = {}
    for name, table in tables.regularizers.present.items():
        with initializing(tables.seed, "regularizer", name):
            methods[name] = table.build(tables.shapes, weights_dir).to(device)
    discriminator = None
    if tables.discriminator:
        with initializing(tables.seed, "discriminator"):
            discriminator = tables.discriminator.build()
        supply_trunk(discriminator, weights_dir)
        discriminator = discriminator.to(device).to(memory_format=layout)
    perceptual = tables.perceptual
    return AutoencoderTask(
        autoencoder,
        methods,
        reconstruction=tables.reconstruction,
        perceptual=(perceptual.build(weights_dir).to(device), perceptual.weight) if perceptual else None,
        adversary=tables.discriminator,
        discriminator=discriminator,
        flip=tables.data.flip,
        wavelet=tables.wavelet,
        sizes=tables.data.schedule,
    )


def begin_from_init(task: AutoencoderTask, tables: TrainAE, images: ImageShards) -> list[str]:
    """Before the first step: initial weights of the discriminator and constants of regularizers. Returns lines for the log."""
    lines = []
    if tables.discriminator and tables.discriminator.init and task.discriminator is not None:
        lines.append(start_discriminator(task.discriminator, tables.discriminator.init))
    elif tables.discriminator and tables.discriminator.alone:
        alone, ramp = tables.discriminator.alone, tables.discriminator.ramp
        lines.append(f"the discriminator trains alone for {alone:,} steps, then enters over {ramp:,} steps")
    if measuring := [method for method in task.methods.values() if type(method).measure is not Regularizer.measure]:
        sample = images.read(range(min(MEASURED_IMAGES, len(images)))).images
        for method in measuring:
            method.measure(sample)
    return lines
