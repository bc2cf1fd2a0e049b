import pytest
import torch

from smtool.networks.tokenizer import point_posterior
from smtool.pipelines.spectrum.decoding import decoded, exact_convolutions, images_at_once, reconstructed
from smtool.tokenizers import open_tokenizer
from smtool.tokenizers.functions import FunctionTokenizer

SIZES = [(256, 256, 4), (64, 64, 64), (16, 16, 64), (512, 256, 2), (2048, 2048, 1)]


@pytest.mark.parametrize(("height", "width", "images"), SIZES)
def test_batches_have_as_many_pixels_as_four_images_of_256(height, width, images):
    assert images_at_once(height, width) == images


def test_latents_are_decoded_batch_by_batch_by_the_size_of_their_images():
    seen = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        seen.append(len(latents))
        return latents.repeat_interleave(8, -1).repeat_interleave(8, -2)

    codec = FunctionTokenizer(
        point_posterior, decode, network=None, label="", source="", architecture="", digest="", downsample=8, latent_channels=3
    )
    latents = torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = decoded(codec, latents)
    assert seen == [4, 4, 3]
    torch.testing.assert_close(images[:, :, ::8, ::8], latents)


def test_nothing_is_reconstructed_without_a_decoder():
    crop = open_tokenizer("control:crop")
    latents = torch.zeros(1, 3, 4, 4)
    assert reconstructed(crop, latents).shape == (1, 3, 32, 32)
    encoder = FunctionTokenizer(
        crop.encode, None, network=None, label="", source="", architecture="", digest="", downsample=8, latent_channels=3
    )
    assert reconstructed(encoder, latents) is None


@pytest.mark.parametrize("before", ["ieee", "tf32"])
def test_convolutions_are_exact_within_and_as_the_user_set_them_after(before):
    convolutions = torch.backends.cudnn.conv
    users = convolutions.fp32_precision
    try:
        convolutions.fp32_precision = before
        with pytest.raises(KeyError), exact_convolutions():
            assert convolutions.fp32_precision == "ieee"
            raise KeyError
        assert convolutions.fp32_precision == before
    finally:
        convolutions.fp32_precision = users
