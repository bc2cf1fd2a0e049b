"""Assembly of a `train-ae` run: data, networks, newest checkpoint."""

from pathlib import Path
from typing import cast

import torch

from smtool.checkpoints.autoencoder import write_autoencoder
from smtool.commands.train.run import Run, assemble_training, check_batch, newest, result_of
from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.validate import Validator
from smtool.data import open_images, training_batches
from smtool.features.frozen import frozen_digests
from smtool.networks.recompute import recompute_activations
from smtool.networks.sd_vae import Autoencoder
from smtool.randomness import initializing
from smtool.recipe import Recipe, TrainAE
from smtool.tasks.autoencoder import AutoencoderTask
from smtool.training.distributed import Ranks, first_rank_ahead

PLAYER = "autoencoder"


def autoencoder_run(recipe: Recipe[TrainAE], folder: RunFolder, ranks: Ranks, weights_dir: Path | None) -> Run:
    """Open the data, build the networks from the recipe's seed, and load the newest checkpoint of the folder if there is one."""
    tables = recipe.tables
    check_batch(recipe, tables.data.batch, ranks)
    with first_rank_ahead(ranks):      # which prepares missing images
        images = open_images(tables.data.train, "train", image_size=tables.data.image_size, channels=tables.model.image_channels)
    task = build_task(tables, ranks.device, weights_dir)
    own = tables.discriminator.optimizer if tables.discriminator else None
    training = assemble_training(
        recipe,
        task,
        ranks,
        batch=tables.data.batch,
        averaged=PLAYER,
        optimizers={PLAYER: tables.optimizer, "discriminator": own or tables.optimizer},
        frozen=frozen_digests(task.perceptual[0] if task.perceptual else None, *task.players.values()),
    )
    checkpoints, first_step = newest(folder, tables, training)
    data, (start, stop) = tables.data, ranks.local_slice(tables.data.batch)

    def result() -> Autoencoder:
        return cast(Autoencoder, result_of(training, PLAYER).get_submodule("autoencoder"))

    def export(step: int) -> None:
        weights = "average" if training.averages else "last"
        metadata = {"recipe": recipe.resolved(), "step": step, "data": images.digest, "weights": weights}
        write_autoencoder(folder.ckpt, result(), {**metadata, "learned_from": tables.learned_from()})

    return Run(
        recipe,
        folder,
        checkpoints,
        training,
        player=PLAYER,
        batches=lambda first: training_batches(
            images, seed=tables.seed, batch=data.batch, first=first, start=start, stop=stop, workers=data.workers
        ),
        observer=lambda: Validator(tables, ranks.device, task.perceptual, result),
        export=export,
        summary=(
            f"{len(images):,} images of {tables.shapes.images[1:]}, {data.batch} a step",
            f"latents {tables.shapes.latents[1:]}",
        ),
        first_step=first_step,
    )


def build_task(tables: TrainAE, device: str, weights_dir: Path | None) -> AutoencoderTask:
    """Build the networks and their losses, initialized from the recipe's seed."""
    with initializing(tables.seed, PLAYER):
        autoencoder = tables.model.build().to(device).to(memory_format=torch.channels_last)
    if tables.memory == "checkpoint":
        recompute_activations(autoencoder)
    methods = {}
    for name, table in tables.regularizers.present.items():
        with initializing(tables.seed, "regularizer", name):
            methods[name] = table.build(tables.shapes, weights_dir).to(device)
    discriminator = None
    if tables.discriminator:
        with initializing(tables.seed, "discriminator"):
            discriminator = tables.discriminator.build().to(device).to(memory_format=torch.channels_last)
    perceptual = tables.perceptual
    return AutoencoderTask(
        autoencoder,
        methods,
        reconstruction=tables.reconstruction,
        perceptual=(perceptual.build(weights_dir).to(device), perceptual.weight) if perceptual else None,
        adversary=tables.discriminator,
        discriminator=discriminator,
        flip=tables.data.flip,
    )
