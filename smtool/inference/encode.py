"""Encodes images with a frozen encoder, batch by batch: one raw latent per image, the mode or a sample of its posterior."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Generator, Tensor

from smtool.data.batches import ImageBatch
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator, noise_of
from smtool.tokenizers.encode import encoded

Draw = Callable[[Posterior, range], Tensor]
"""(posterior of a batch, numbers of its images) -> one raw latent per image, (B, C, h, w)."""


def mode(posterior: Posterior, numbers: range) -> Tensor:
    """The modes of the posterior."""
    return posterior.mode()


def sampled_by_number(*key: int | str) -> Draw:
    """Posterior samples whose noise depends on the key and the image's number, not on the batch."""

    def draw(posterior: Posterior, numbers: range) -> Tensor:
        noise = noise_of((generator(*key, number) for number in numbers), posterior.mean.shape[1:])
        return posterior.sample(noise.to(posterior.mean))

    return draw


def sampled_in_order(stream: Generator) -> Draw:
    """Posterior samples whose noise is drawn from one stream, batch after batch, so that it depends on the batch size."""
    return lambda posterior, numbers: posterior.sample(
        torch.randn(posterior.mean.shape, generator=stream).to(posterior.mean)
    )


def encoded_latents(tokenizer: Tokenizer, batches: Iterable[ImageBatch], draw: Draw, *, first: int = 0) -> Iterator[Tensor]:
    """Yield the raw latents (B, C, h, w) of every batch, on the tokenizer's device. first: number of the first image.

    Raises DataError, naming the image, for an encoding that is not finite.
    """
    for batch in batches:
        posterior = encoded(tokenizer, batch.images, batch.ids, device=tokenizer.device)
        yield draw(posterior, range(first, first + len(batch)))
        first += len(batch)
