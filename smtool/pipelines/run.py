"""A training run, assembled: its data, its players, its folder, and the newest checkpoint loaded."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from smtool.datasets import ImageShards, open_images, training_batches
from smtool.errors import RecipeError
from smtool.networks.autoencoder import Autoencoder
from smtool.pipelines.run_folder import RunFolder
from smtool.randomness import initializing
from smtool.recipe import Recipe, TrainAE
from smtool.tasks.autoencoder import AutoencoderTask
from smtool.training.checkpoint import Checkpoints
from smtool.training.distributed import Ranks, wait_for_all
from smtool.training.loop import Plan, StepReport, Training, optimize
from smtool.training.precision import MixedPrecision


@dataclass(frozen=True)
class Run:
    """A training run, ready to go on from `first_step`."""

    recipe: Recipe[TrainAE]
    folder: RunFolder
    checkpoints: Checkpoints
    task: AutoencoderTask
    training: Training
    images: ImageShards
    first_step: int

    @property
    def result(self) -> Autoencoder:
        """The autoencoder to validate, save and share: the average of the weights where there is one."""
        average = self.training.averages.get("autoencoder")
        if average is None:
            return self.task.autoencoder
        autoencoder = average.module.get_submodule("autoencoder")
        assert isinstance(autoencoder, Autoencoder)
        return autoencoder

    def reports(self, first_step: int) -> Iterator[StepReport]:
        """The loop over this rank's slices of the global batches; the reader's threads end with it."""
        data, seed = self.recipe.tables.data, self.recipe.tables.seed
        start, stop = self.training.ranks.share(data.batch)
        with closing(
            training_batches(
                self.images, seed=seed, batch=data.batch, first=first_step, start=start, stop=stop, workers=data.workers
            )
        ) as batches:
            yield from optimize(self.training, batches, first_step=first_step)


def assemble_run(recipe: Recipe[TrainAE], folder: RunFolder, ranks: Ranks, weights_dir: Path | None) -> Run:
    """Open the data, build the players from the recipe's seed, load the newest checkpoint of the folder if there is one."""
    tables = recipe.tables
    if tables.data.batch % (ranks.world * tables.accumulate):
        raise RecipeError(
            f"{recipe.path}: data.batch = {tables.data.batch} is not a multiple of {ranks.world} ranks x {tables.accumulate} "
            "micro-batches (accumulate).",
            hint="Choose a batch that is, so that the result does not depend on the number of ranks.",
        )
    images = _opened(tables, ranks)
    task = build_task(tables, ranks.device, weights_dir)
    own = tables.discriminator.optimizer if tables.discriminator else None
    rates = {"autoencoder": tables.optimizer, "discriminator": own or tables.optimizer}
    training = Training(
        task=task,
        optimizers={
            player: rates[player].build(module.named_parameters(), ranks.device) for player, module in task.players.items()
        },
        averages={"autoencoder": tables.ema.build(task.players["autoencoder"])} if tables.ema else {},
        precision=MixedPrecision(tables.precision, ranks.device),
        ranks=ranks,
        plan=Plan(tables.seed, tables.data.batch, tables.accumulate, tables.steps),
    )
    checkpoints = Checkpoints(folder.checkpoints, tables.keep_last, tables.keep_every)
    first_step = checkpoints.latest() or 0
    if first_step:
        checkpoints.load(first_step, training)
    return Run(recipe, folder, checkpoints, task, training, images, first_step)


def build_task(tables: TrainAE, device: str, weights_dir: Path | None) -> AutoencoderTask:
    """The players and their losses, initialized from the recipe's seed."""
    with initializing(tables.seed, "autoencoder"):
        autoencoder = tables.model.build().to(device).to(memory_format=torch.channels_last)
    methods = {}
    for name, table in tables.regularizers.present.items():
        with initializing(tables.seed, "regularizer", name):
            methods[name] = table.build(tables.model.latent_channels, tables.model.downsample).to(device)
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


def _opened(tables: TrainAE, ranks: Ranks) -> ImageShards:
    """The training images; the first rank prepares them where they are not yet, while the others wait."""
    if not ranks.first:
        wait_for_all()
    images = open_images(tables.data.train, "train", image_size=tables.data.image_size)
    if ranks.first:
        wait_for_all()
    return images
