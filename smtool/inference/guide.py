"""Autoguidance: a weaker transformer of the same latents guides sampling (Karras et al., arXiv 2406.02507)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from smtool.errors import CheckpointError
from smtool.inference.diffusion_model import DiffusionModel, Guide, find_diffusion, read_diffusion
from smtool.networks.posterior import LatentStats
from smtool.recipe import TrainDiT

_OF_TRAINING = {"time", "logit_mean", "logit_std", "shift", "input_perturbation"}
"""Keys of processes for training and for sampling grids, which do not change what a prediction means."""


def guided_by(
    model: DiffusionModel, guide: str, *, device: str = "cpu", read: Callable[[Path, str], DiffusionModel] = read_diffusion
) -> DiffusionModel:
    """The model with the transformer of another checkpoint as its guide, in place of the null class.

    guide: a checkpoint of train-dit, its run folder, or the name of a run; read: (path, device) -> model, for other files. The
    guide sees the same labels; it may have no classes, as in classifier-free guidance by a separate network. Raises
    CheckpointError unless both predict the same quantity for the same normalized latents, and if both have the same weights.
    """
    opened = read(find_diffusion(guide), device)
    if differing := list(_differences(model, opened)):
        raise CheckpointError(
            f"--guide {guide} cannot guide this transformer: {'; '.join(differing)}.",
            hint="Pass one trained on the same latents with the same process, such as a smaller one or an earlier step.",
        )
    if opened.metadata["digest"] == model.metadata["digest"]:
        raise CheckpointError(
            f"--guide {guide} has the weights of the transformer that it is to guide, so guidance has no effect.",
            hint="Pass a weaker transformer: a smaller one or an earlier step.",
        )
    return replace(model, guide=Guide(opened.network, guide, opened.metadata))


def _differences(model: DiffusionModel, guide: DiffusionModel) -> Iterator[str]:
    """Sentences on what keeps the predictions of both from being compared."""
    if guide.latent_shape != model.latent_shape:
        yield f"its latents are {_words(guide.latent_shape)}, not {_words(model.latent_shape)}"
        return
    if guide.metadata["autoencoder"]["digest"] != model.metadata["autoencoder"]["digest"]:
        yield "its latents are of another autoencoder"
    if not _equal(guide.stats, model.stats):
        yield f"its latents are normalized by other statistics ({guide.stats.name}, here {model.stats.name})"
    theirs, ours = _process(guide.tables), _process(model.tables)
    if theirs != ours:
        keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
        yield "its process has " + ", ".join(f"{key} = {theirs.get(key)} (here {ours.get(key)})" for key in keys)
    if guide.num_classes not in (0, model.num_classes):
        yield f"it has {guide.num_classes} classes, not {model.num_classes}"


def _process(tables: TrainDiT) -> dict[str, object]:
    """The keys of a process that give predictions their meaning."""
    return tables.process.model_dump(exclude=_OF_TRAINING)


def _equal(first: LatentStats, second: LatentStats) -> bool:
    """Whether both normalize alike, whatever they were measured on."""
    if first.kind != second.kind or first.mean.shape != second.mean.shape:
        return False
    filters = [None if stats.recolouring is None else stats.recolouring.to_metadata() for stats in (first, second)]
    return torch.equal(first.mean, second.mean) and torch.equal(first.std, second.std) and filters[0] == filters[1]


def _words(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
