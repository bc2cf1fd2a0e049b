"""The predicted memory of a training run's activations, and advice where it does not suffice."""

from smtool.commands.train.run import Run
from smtool.recipe import TrainAE, TrainDiT
from smtool.recipe.activation_memory import Activations, autoencoder_activations, transformer_activations
from smtool.tasks.diffusion import DiffusionTask
from smtool.tasks.end_to_end import EndToEndTask


def memory_advice(run: Run) -> str:
    return predicted_activations(run).advice(run.tables.memory)


def predicted_activations(run: Run) -> Activations:
    tables, world, task = run.tables, run.training.ranks.world, run.training.task
    if isinstance(tables, TrainAE):
        return autoencoder_activations(tables, world=world)
    assert isinstance(tables, TrainDiT)
    if isinstance(task, EndToEndTask):
        assert run.autoencoder is not None
        return _transformer(tables, task.diffusion, world) + autoencoder_activations(run.autoencoder, world=world)
    assert isinstance(task, DiffusionTask)
    return _transformer(tables, task, world)


def _transformer(tables: TrainDiT, task: DiffusionTask, world: int) -> Activations:
    return transformer_activations(tables, task.network.latent_shape, task.network.num_classes, world=world)
