"""Latents do not depend on the batch size, and posterior noise comes from the named streams."""

import pytest
import torch
from torch.testing import assert_close

from smtool.data.batches import ImageBatch
from smtool.errors import DataError
from smtool.inference.encode import encoded_latents, mode, sampled_by_number, sampled_in_order
from smtool.networks.posterior import Posterior
from smtool.randomness import generator
from smtool.tokenizers.functions import FunctionTokenizer

IDS = tuple("abcdefg")


def spread(images: torch.Tensor) -> Posterior:
    """A posterior of every fourth pixel, with std 1/2."""
    mean = images[..., ::4, ::4]
    return Posterior(mean, torch.full_like(mean, 2 * torch.log(torch.tensor(0.5)).item()))


@pytest.fixture
def tokenizer() -> FunctionTokenizer:
    return FunctionTokenizer(
        spread, None, network=None, label="", source="", architecture="", digest="", downsample=4, latent_channels=3
    )


@pytest.fixture
def images() -> ImageBatch:
    return ImageBatch(torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0)), None, IDS)


def joined(tokenizer, images, size, draw, **options) -> torch.Tensor:
    return torch.cat(list(encoded_latents(tokenizer, images.split(size), draw, **options)))


def test_the_mode_is_the_encoders_mean(tokenizer, images):
    assert torch.equal(joined(tokenizer, images, 3, mode), images.images[..., ::4, ::4])


@pytest.mark.parametrize("size", [1, 3, 7])
def test_noise_by_number_does_not_depend_on_the_batch(tokenizer, images, size):
    latents = joined(tokenizer, images, size, sampled_by_number(5, "posterior"), first=10)
    noise = [torch.randn(3, 2, 2, generator=generator(5, "posterior", 10 + row)) for row in range(7)]
    assert_close(latents, images.images[..., ::4, ::4] + 0.5 * torch.stack(noise))


def test_noise_in_order_comes_from_one_stream(tokenizer, images):
    latents = joined(tokenizer, images, 4, sampled_in_order(generator("one")))
    stream = generator("one")
    noise = torch.cat([torch.randn(4, 3, 2, 2, generator=stream), torch.randn(3, 3, 2, 2, generator=stream)])
    assert_close(latents, images.images[..., ::4, ::4] + 0.5 * noise)


def test_an_encoding_that_is_not_finite_names_its_image(tokenizer, images):
    images.images[4, 0, 0, 0] = float("inf")
    with pytest.raises(DataError, match="image e is not finite"):
        joined(tokenizer, images, 3, mode)
