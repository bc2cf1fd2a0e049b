"""Weights of latent channels in the loss of a `train-dit` run: measured, given, or those of the run that is resumed."""

from collections.abc import Sequence
from pathlib import Path

import torch

from smtool.checkpoints.diffusion import is_diffusion, read_diffusion_metadata
from smtool.commands.train.latent_source import LatentSource
from smtool.errors import DataError, RecipeError
from smtool.randomness import generator
from smtool.recipe import Recipe, TrainDiT
from smtool.spectrum.entropy import entropy_weights

MEASURED_SAMPLES = 1024
"""Latents whose entropy is measured: the first in stored order, which is random."""
_SHOWN = 64      # largest number of weights in the log


def loss_weights(recipe: Recipe[TrainDiT], source: LatentSource, *, resumed: Path | None) -> tuple[float, ...] | None:
    """The weight of each channel; None for uniform weights.

    resumed: the ckpt.safetensors of a run to resume, whose weights are used. Raises RecipeError for a wrong number of weights,
    and DataError if the latents have no entropy to measure.
    """
    asked = recipe.tables.loss.weights
    if asked == "uniform":
        return None
    channels = source.shape[0]
    if not isinstance(asked, str):
        if len(asked) != channels:
            raise RecipeError(
                f"{recipe.path}: loss.weights has {len(asked)} numbers, but latents of {source.place} have {channels} channels."
            )
        return asked
    if resumed is not None and is_diffusion(resumed):
        stored = read_diffusion_metadata(resumed).get("loss_weights")
        if stored is not None:
            return tuple(stored)
    return _measured(source)


def weights_line(weights: Sequence[float], source: LatentSource, *, measured: bool) -> str:
    """A line for the log: the weights, those of equal blocks of channels once."""
    origin = f"the entropy of {min(MEASURED_SAMPLES, len(source.images)):,} latents" if measured else "the recipe"
    groups = source.autoencoder.channel_groups or ((1, len(weights)),)
    parts, first = [], 0
    for blocks, coefficients in groups:
        parts += _blocks(weights[first : first + blocks * coefficients], blocks, coefficients)
        first += blocks * coefficients
    return f"loss weights of {len(weights)} channels, from {origin}: {'; '.join(parts)}"


def _measured(source: LatentSource) -> tuple[float, ...]:
    posterior = source.first(MEASURED_SAMPLES)
    noise = torch.randn(posterior.mean.shape, generator=generator("loss weights"))
    latents = source.stats.normalize(posterior.sample(noise.to(posterior.mean)))
    try:
        return tuple(entropy_weights(latents, source.autoencoder.channel_groups).tolist())
    except ValueError as error:
        raise DataError(f"{source.place}: {error}.", hint='Use loss.weights = "uniform", or numbers.') from error


def _blocks(weights: Sequence[float], blocks: int, coefficients: int) -> list[str]:
    """The weights of a group of channels: once, if those of all blocks are equal."""
    parts = [weights[start : start + coefficients] for start in range(0, len(weights), coefficients)]
    if all(part == parts[0] for part in parts):
        return [(f"{blocks} x " if blocks > 1 else "") + _numbers(parts[0])]
    return [_numbers(part) for part in parts]


def _numbers(weights: Sequence[float]) -> str:
    return " ".join(f"{weight:.3f}" for weight in weights[:_SHOWN]) + (" ..." if len(weights) > _SHOWN else "")
