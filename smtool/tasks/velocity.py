"""Training a diffusion decoder: noised images, the error of the velocity, and the images that it implies (arXiv 2410.04081)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from smtool.devices import image_layout
from smtool.diffusion import Flow
from smtool.networks.trainable import DiffusionAutoencoder
from smtool.randomness import Streams
from smtool.regularizers import Pair


@dataclass(frozen=True)
class Denoised:
    """One pair at random times. images: the one-step estimate x_t - t v of the images; velocity, target: v and noise - x."""

    images: Tensor
    velocity: Tensor
    target: Tensor


def denoise(autoencoder: DiffusionAutoencoder, pairs: Sequence[Pair], streams: Streams, flow: Flow) -> list[Denoised]:
    """Noise the images of each pair at a time per image, and predict their velocity from x_t and the pair's latents."""
    process, found = flow.build(), []
    for number, pair in enumerate(pairs):
        noise = streams.batch(f"decoder-noise-{number}", pair.images.shape)
        noised = process.noised(pair.images, noise, streams.uniform(f"decoder-time-{number}", (len(pair.images),)))
        x_t = noised.x_t.contiguous(memory_format=image_layout(noised.x_t.device, noised.x_t.shape[-2:]))
        velocity = autoencoder.velocity(x_t, noised.t, pair.latents)
        found.append(Denoised(process.denoised(velocity, x_t, noised.t), velocity, noised.target))
    return found
