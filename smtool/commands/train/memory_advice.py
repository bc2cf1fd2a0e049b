"""Advice for a training run that does not fit into memory, with the predicted memory of its activations."""

from smtool.commands.train.run import Run
from smtool.recipe import TrainAE, TrainDiT
from smtool.recipe.activation_memory import autoencoder_activations, transformer_activations
from smtool.tasks.diffusion import DiffusionTask


def memory_advice(run: Run) -> str:
    tables, world, task = run.tables, run.training.ranks.world, run.training.task
    if isinstance(tables, TrainAE):
        found = autoencoder_activations(tables, world=world)
    else:
        assert isinstance(tables, TrainDiT) and isinstance(task, DiffusionTask)
        found = transformer_activations(tables, task.network.latent_shape, task.network.num_classes, world=world)
    return found.advice(tables.memory)
