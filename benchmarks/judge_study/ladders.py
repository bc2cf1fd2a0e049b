"""Ladders: sets of images of known order, made from one source by rising amounts of degradation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smtool.data import open_images
from smtool.data.batches import to_signed, to_uint8
from smtool.inference.diffusion_model import read_diffusion
from smtool.inference.generate import generate
from smtool.randomness import generator
from smtool.tokenizers import open_tokenizer

NOISE, BLUR = (0.0, 8.0, 11.0), (0.0, 0.42, 0.5)
LATENT_NOISE, STEPS = (0.0, 0.25, 0.4), (18, 17, 16)
SAMPLES = 1500      # of the transformer, for each level
MOST = 3000      # images of a source, and of its reference
BATCH = 100


@dataclass(frozen=True)
class Ladder:
    """title: what rises; reference: uint8 images (M, 3, H, W), none of which is in a level; levels: amount -> images, the best
    first. All levels are made from the same images, but each resample takes other ones of each level.
    """

    name: str
    title: str
    reference: Tensor
    levels: dict[float, Tensor]


def noise_ladder(images: Tensor, amounts: Sequence[float]) -> dict[float, Tensor]:
    """uint8 images (N, 3, H, W) with white Gaussian noise. amounts: its standard deviation in grey levels."""
    noise = torch.randn(images.shape, generator=generator("judge study", "noise"))
    return {amount: (images + amount * noise).round().clamp(0, 255).byte() for amount in amounts}


def blur_ladder(images: Tensor, amounts: Sequence[float]) -> dict[float, Tensor]:
    """uint8 images (N, 3, H, W), blurred by a Gaussian. amounts: its standard deviation in pixels."""
    return {amount: blurred(images, amount) if amount else images for amount in amounts}


def blurred(images: Tensor, sigma: float) -> Tensor:
    """A separable Gaussian filter with a radius of 4 sigma, on reflect-padded images; uint8 in and out."""
    radius = max(1, round(4 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).double() / sigma).square()).float()
    kernel = (weights / weights.sum()).expand(images.shape[1], 1, -1)
    x = torch.nn.functional.pad(images.float(), [radius] * 4, mode="reflect")
    x = torch.nn.functional.conv2d(x, kernel[..., None], groups=images.shape[1])
    x = torch.nn.functional.conv2d(x, kernel[:, :, None], groups=images.shape[1])
    return x.round().clamp(0, 255).byte()


@torch.no_grad()
def latent_ladder(images: Tensor, amounts: Sequence[float], autoencoder: str) -> dict[float, Tensor]:
    """Decodings of the latents of uint8 images with white noise. amounts: its standard deviation over that of each channel."""
    tokenizer = open_tokenizer(autoencoder)
    latents = torch.cat([tokenizer.encode(to_signed(part)).mode() for part in images.split(BATCH)])
    noise = torch.randn(latents.shape, generator=generator("judge study", "latents")) * latents.std((0, 2, 3), keepdim=True)
    return {
        amount: torch.cat([to_uint8(tokenizer.decode(part)) for part in (latents + amount * noise).split(BATCH)])
        for amount in amounts
    }


@torch.no_grad()
def step_ladder(count: int, amounts: Sequence[float], checkpoint: Path) -> dict[float, Tensor]:
    """Samples of a transformer, from the same noise at each level. amounts: number of Euler steps, the most first."""
    model = read_diffusion(checkpoint, "cpu")

    def drawn(steps: float) -> Tensor:
        sampler = model.tables.sampler.model_copy(update={"kind": "euler", "steps": int(steps)})
        return torch.cat([part for _, part in generate(model, range(count), seed=0, sampler=sampler, labels=None, batch=BATCH)])

    return {amount: drawn(amount) for amount in amounts}


def halves(folder: str) -> tuple[Tensor, Tensor]:
    """The training images of a prepared folder of 32 px, uint8 (N, 3, 32, 32): a random half to degrade, and a reference."""
    shards = open_images(folder, "train", image_size=32)
    images = to_uint8(shards.read(range(len(shards))).images)
    order = torch.randperm(len(images), generator=generator("judge study", "halves"))
    some = min(len(images) // 2, MOST)
    return images[order[:some]], images[order[-some:]]


def all_ladders(cifar10: str, faces: str, autoencoder: str, transformer: Path) -> Iterator[Ladder]:
    """Make every ladder. cifar10, faces: prepared folders of 32 px; autoencoder, transformer: checkpoints on the faces."""
    source, reference = halves(cifar10)
    yield Ladder("noise", "noise on CIFAR-10, grey levels", reference, noise_ladder(source, NOISE))
    yield Ladder("blur", "blur of CIFAR-10, px", reference, blur_ladder(source, BLUR))
    source, reference = halves(faces)
    levels = latent_ladder(source, LATENT_NOISE, autoencoder)
    itself = latent_ladder(reference, (0.0,), autoencoder)[0.0]
    yield Ladder("latents-itself", "noise on latents, against reconstructions", itself, levels)
    yield Ladder("latents", "noise on latents, against images", reference, levels)
    yield Ladder("steps", "Euler steps of samples", reference, step_ladder(SAMPLES, STEPS, transformer))
