"""Reconstructions equal encoding and decoding in one batch; the batch size depends on the image size."""

import pytest
import torch

from smtool.data.batches import ImageBatch
from smtool.errors import CheckpointError
from smtool.inference.reconstruct import decoded_in_parts, images_at_once, reconstructed, uint8_reconstructions
from smtool.tokenizers import Tokenizer, open_tokenizer

SIZES = [(256, 256, 4), (64, 64, 64), (16, 16, 64), (512, 256, 2), (2048, 2048, 1)]


@pytest.fixture
def crop() -> Tokenizer:
    return open_tokenizer("control:crop")


@pytest.fixture
def images() -> ImageBatch:
    pixels = 2 * torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 1
    return ImageBatch(pixels, None, tuple("abcde"))


@pytest.mark.parametrize(("height", "width", "images"), SIZES)
def test_batches_have_as_many_pixels_as_four_images_of_256(height, width, images):
    assert images_at_once(height, width) == images


def test_every_image_is_encoded_and_decoded_once_in_order(crop, images):
    parts = list(reconstructed(crop, images.split(2)))
    assert [len(part.images) for part in parts] == [2, 2, 1]
    latents = crop.encode(images.images).mode()
    torch.testing.assert_close(torch.cat([part.latents for part in parts]), latents)
    torch.testing.assert_close(torch.cat([part.decoded for part in parts]), crop.decode(latents))


def test_eight_bits_are_rounded_to_the_nearest_level(images):
    pixels = open_tokenizer("pixels")
    found = uint8_reconstructions(pixels, images.split(2))
    assert found.dtype == torch.uint8
    assert torch.equal(found, ((images.images + 1) * 127.5).round().to(torch.uint8))


def test_a_decoding_that_is_not_finite_names_its_image(crop, images, monkeypatch):
    monkeypatch.setattr(crop, "decode", lambda latents: torch.where(latents == latents.max(), torch.nan, latents))
    worst = images.ids[int(crop.encode(images.images).mode().flatten(1).amax(1).argmax())]
    with pytest.raises(CheckpointError, match=f"image {worst} holds NaN or infinity"):
        list(reconstructed(crop, [images]))


def test_decodings_have_no_gradient():
    weight = torch.ones(1, requires_grad=True)
    pixels = open_tokenizer("pixels")
    pixels.decode = lambda latents: latents * weight
    (part,) = reconstructed(pixels, [ImageBatch(torch.zeros(1, 3, 4, 4), None, ("a",))])
    assert not part.decoded.requires_grad


def test_latents_are_decoded_in_batches_of_the_given_size():
    seen = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        seen.append(len(latents))
        return 2 * latents

    latents = torch.arange(12.0).view(6, 2, 1, 1)
    assert torch.equal(decoded_in_parts(decode, latents, 4), 2 * latents)
    assert seen == [4, 2]
