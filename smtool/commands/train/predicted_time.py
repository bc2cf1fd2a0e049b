"""The predicted time of a run's steps, which a dry run prints beside the measured time."""

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import cast

import torch

from smtool.commands.train.cost_subject import autoencoder_subject, end_to_end_subject, transformer_subject
from smtool.commands.train.run import Run
from smtool.cost.cpu import CPU, measure_cpu
from smtool.cost.estimate import Subject, step_seconds
from smtool.cost.gpus import GPU, installed_gpu
from smtool.devices import meta_as_cpu
from smtool.recipe import TrainAE, TrainDiT
from smtool.tasks.diffusion import DiffusionTask
from smtool.tasks.end_to_end import EndToEndTask
from smtool.training.loop import Batch

_META = "meta"


@dataclass(frozen=True)
class Predictor:
    """Predicts steps of runs on a processor; None: on one that is not known. said: by what it predicts, or why it does not."""

    processor: GPU | CPU | None
    said: str

    def seconds(self, run: Run, steps: Sequence[int]) -> float | None:
        """Mean seconds of these steps (counted from 0) on the run's own batches, without waiting for data; None if not known."""
        if self.processor is None:
            return None
        with closing(run.batches(steps[0])) as batches:
            batch = next(batches)
        micro_batch = batch.slice(0, len(batch) // run.tables.accumulate).to(_META)
        with meta_as_cpu() if isinstance(self.processor, CPU) else nullcontext():
            subject = _subject(run, micro_batch)
            if isinstance(self.processor, CPU):      # rates are those of PyTorch's own kernels
                subject = replace(subject, compiled=())
            return step_seconds(subject, self.processor, run.training.ranks.world, micro_batch, steps)


def predictor_for(run: Run) -> Predictor:
    """For the device of a run: a GPU by its datasheet; a CPU by rates that are measured now, in one to two seconds."""
    training, compiled = run.training, isinstance(run.tables, TrainDiT) and run.tables.compile
    kind, world = torch.device(training.ranks.device).type, training.ranks.world
    if kind == "cuda":
        name = torch.cuda.get_device_name(training.ranks.device)
        found = installed_gpu(name)
        if found is None:
            return Predictor(None, f"no prediction: the peaks of {name} are not known")
        fused = "with compiled blocks" if compiled else "without a compiler that fuses kernels"
        return Predictor(found, f"predicted from the datasheet of {found.title}, {fused}")
    if kind != "cpu" or world > 1:
        return Predictor(None, "no prediction for " + ("several processes on CPUs" if kind == "cpu" else kind))
    cpu = measure_cpu(training.precision.dtype, torch.get_num_threads())
    return Predictor(cpu, f"predicted for {cpu.title}" + (", as if it were not compiled" if compiled else ""))


def _subject(run: Run, batch: Batch) -> Subject:
    """The run's task on the meta device."""
    tables, task, name = run.tables, run.training.task, run.recipe.name
    if isinstance(tables, TrainAE):
        return autoencoder_subject(tables, name)
    joint = cast(TrainDiT, tables)
    if isinstance(task, EndToEndTask):
        assert run.autoencoder is not None
        return end_to_end_subject(joint, run.autoencoder, name, task.diffusion.network.num_classes)
    assert isinstance(task, DiffusionTask)
    network = task.network
    return transformer_subject(joint, name, network.latent_shape, network.num_classes, lambda _: batch)
