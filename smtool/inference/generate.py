"""Generates images from a diffusion checkpoint. The noise of image i depends on (seed, i) only, not on batch size or ranks."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from smtool.data.batches import Rounding, to_uint8
from smtool.devices import float64_device, to_device
from smtool.diffusion import Observer, Sampler, sample
from smtool.errors import RecipeError
from smtool.inference.diffusion_model import DiffusionModel
from smtool.inference.precision import with_precision
from smtool.randomness import generator, noise_of
from smtool.training.precision import weights_cast_once


@torch.no_grad()
def generate(
    model: DiffusionModel,
    indices: Sequence[int],
    *,
    seed: int,
    sampler: Sampler,
    labels: Sequence[int] | None,
    batch: int,
    device: str = "cpu",
    rounding: Rounding = "nearest",
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield (indices, uint8 images (B, C, H, W) on the CPU) in order.

    labels: the class of each of `indices`, None for an unconditional model; rounding: of pixels to uint8 (`to_uint8`).
    """
    for start in range(0, len(indices), batch):
        part = indices[start : start + batch]
        chosen = None if labels is None else to_device(torch.tensor(labels[start : start + batch], device="cpu"), device)
        latents = sample_latents(model, part, seed=seed, sampler=sampler, labels=chosen, device=device)
        yield part, to_uint8(model.autoencoder.decode(model.stats.denormalize(latents)), rounding).cpu()


def class_labels(count: int, num_classes: int, which: str, *, seed: int) -> list[int] | None:
    """The class of each of `count` images.

    which: "balanced" (all classes in turn), "random" (uniform, by seed and index), or a list such as 3,7, which is repeated.
    Returns None for an unconditional model. Raises RecipeError for classes that the model does not have.
    """
    if num_classes == 0:
        if which != "balanced":
            raise RecipeError(f"--labels {which}: this model has no classes.", hint="Leave --labels out.")
        return None
    if which == "balanced":
        return [index % num_classes for index in range(count)]
    if which == "random":
        draws = torch.randint(num_classes, (count,), generator=generator("labels", seed))
        return [int(label) for label in draws]
    try:
        wanted = [int(label) for label in which.split(",")]
    except ValueError as error:
        raise RecipeError(f"--labels {which}: expected balanced, random, or numbers such as 0,3,7.") from error
    if bad := [label for label in wanted if not 0 <= label < num_classes]:
        raise RecipeError(f"--labels {which}: {bad[0]} is not one of this model's classes 0 ... {num_classes - 1}.")
    return [wanted[index % len(wanted)] for index in range(count)]


@torch.no_grad()
def sample_latents(
    model: DiffusionModel,
    indices: Sequence[int],
    *,
    seed: int,
    sampler: Sampler,
    labels: Tensor | None,
    device: str = "cpu",
    observe: Observer | None = None,
) -> Tensor:
    """Sample normalized latents (B, C, h, w). Each image has its own generator, for the initial noise and that of each step.

    The sampler computes on the device, or on the CPU if the device has no float64.

    labels: (B,) on the device, None for an unconditional model; observe: called at the start of each step (`sample`).
    """
    sampler = with_precision(sampler, model, device)
    streams = [generator("sample", seed, index) for index in indices]
    home = float64_device(device)
    noise = to_device(noise_of(streams, model.latent_shape), home)
    guided = sampler.model(
        model.process,
        model.network,
        labels=None if labels is None else labels.to(home),
        null=model.num_classes,
        guide=model.guide,
        device=None if home.type == torch.device(device).type else device,
    )
    networks = [model.network, *([model.guide.network] if model.guide else [])]
    with weights_cast_once(networks, sampler.network_precision, device):
        return sample(
            model.process,
            guided,
            noise,
            sampler,
            step_noise=lambda step: to_device(noise_of(streams, model.latent_shape), home),
            observe=observe,
        ).to(device)
