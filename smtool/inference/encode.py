"""Images through a frozen encoder, batch by batch: one raw latent of each image, as its posterior is to be read."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Generator, Tensor

from smtool.data.batches import ImageBatch
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator, noise_of
from smtool.tokenizers.encode import encoded

Draw = Callable[[Posterior, range], Tensor]
"""A batch's posterior and the numbers of its images -> one raw latent of each, (B, C, h, w)."""


def mode(posterior: Posterior, numbers: range) -> Tensor:
    """The most likely latents."""
    return posterior.mode()


def sampled_by_number(*key: int | str) -> Draw:
    """Samples whose noise depends on the key and the image's number, not on the batch."""

    def draw(posterior: Posterior, numbers: range) -> Tensor:
        noise = noise_of((generator(*key, number) for number in numbers), posterior.mean.shape[1:])
        return posterior.sample(noise.to(posterior.mean))

    return draw


def sampled_in_order(stream: Generator) -> Draw:
    """Samples whose noise comes from one stream, a batch after the other: it depends on the batch size too."""
    return lambda posterior, numbers: posterior.sample(
        torch.randn(posterior.mean.shape, generator=stream).to(posterior.mean)
    )


def encoded_latents(tokenizer: Tokenizer, batches: Iterable[ImageBatch], draw: Draw, *, first: int = 0) -> Iterator[Tensor]:
    """Raw latents (B, C, h, w) of every batch, where the tokenizer lies, in order. first: the number of the first image.

    Raises DataError that names an image whose encoding is not finite.
    """
    for batch in batches:
        posterior = encoded(tokenizer, batch.images, batch.ids, device=tokenizer.device)
        yield draw(posterior, range(first, first + len(batch)))
        first += len(batch)
