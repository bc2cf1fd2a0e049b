"""Control autoencoders through the whole section (spectrum.md#band-transfer): f8, 16x16 latents of 128 px images."""

import pytest
import torch
from torch import Tensor

from smtool.diffusability.inputs.subjects import Subject
from smtool.diffusability.sections import transfer
from smtool.diffusability.sections.parts import Reason
from smtool.networks.tokenizer import point_posterior
from smtool.randomness import generator
from smtool.spectrum import band_transfer, idct2
from smtool.tokenizers import Tokenizer, open_tokenizer
from smtool.tokenizers.functions import FunctionTokenizer


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """Fields whose amplitude falls as 1 / f, 128 px."""
    axis = torch.arange(128)
    radius = (axis.square()[:, None] + axis.square()).sqrt()
    radius[0, 0] = 1
    return 0.2 * idct2(128 / 10 * torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)) / radius)


def section_of(codec: Tokenizer, images: Tensor) -> transfer.Transfer | Reason:
    latents, subject = codec.encode(images).mode(), Subject("it", codec)
    return transfer.measure(subject, latents, subject.reconstruct(latents))


@pytest.mark.parametrize(("control", "share", "kappa", "above", "relative_share", "relative_kappa"), [
    ("crop", 1.0, 1.0, 0.0, 0.125, 0.0),
    ("crop-half", 1.0, 1.0, 0.0, 0.25, 0.0),
    ("stretch", 0.0, -0.02, 0.875, 1.0, 1.0),
    ("space-to-depth", 0.014, 0.01, 0.984, 0.126, 0.0),
    ("bilinear", 0.94, 0.93, 0.06, 0.13, 0.0),
])
def test_the_controls_have_the_documented_numbers(photographs, control, share, kappa, above, relative_share, relative_kappa):
    found = section_of(open_tokenizer(f"control:{control}"), photographs)
    assert (found.share, found.kappa, found.above) == pytest.approx((share, kappa, above), abs=0.015)
    assert (found.relative_share, found.relative_kappa) == pytest.approx((relative_share, relative_kappa), abs=0.015)
    assert sum(found.answered) == (4 if control == "crop-half" else 8)
    assert found.is_linear and found.remark is None


def test_an_image_is_decoded_nine_times_and_the_matrix_is_as_if_the_base_had_been_decoded_too(photographs):
    inner, seen = open_tokenizer("control:bilinear"), []

    def decode(latents: Tensor) -> Tensor:
        seen.append(len(latents))
        return inner.decode(latents)

    latents = inner.encode(photographs).mode()
    base = inner.decode(latents)
    codec = FunctionTokenizer(
        inner.encode, decode, network=None, label="counted", source="", architecture="", digest="", downsample=8,
        latent_channels=3, deterministic=True,
    )
    found = transfer.measure(Subject("it", codec), latents, base)
    assert sum(seen) == 9 * len(photographs)
    direct = band_transfer(inner.decode, latents, 8, generator=generator("spectrum", "transfer"))
    torch.testing.assert_close(torch.tensor(found.absolute).double(), direct.absolute, rtol=1e-4, atol=1e-6)


def test_a_decoder_that_is_not_linear_at_this_scale_gets_a_remark(photographs):
    pooled = open_tokenizer("control:nearest")

    def steps(latents: Tensor) -> Tensor:
        """A staircase with steps as high as the perturbation, so that the response depends on the perturbation's size."""
        return pooled.decode((latents / 0.05).round() * 0.05)

    codec = FunctionTokenizer(
        lambda images: point_posterior(pooled.encode(images).mode()), steps, network=None, label="steps", source="",
        architecture="", digest="", downsample=8, latent_channels=3, deterministic=True,
    )
    found = section_of(codec, photographs)
    assert not found.is_linear
    assert f"changes by {found.self_check:.2f}" in found.remark


def test_missing_decoders_and_decoders_without_a_response_give_a_reason(photographs):
    codec = open_tokenizer("control:crop")
    latents = codec.encode(photographs).mode()
    assert transfer.measure(Subject("it", codec), latents, None) == Reason(reason="it has no decoder")
    deaf = FunctionTokenizer(
        codec.encode, lambda z: torch.zeros(len(z), 3, 128, 128), network=None, label="deaf", source="", architecture="",
        digest="", downsample=8, latent_channels=3, deterministic=True,
    )
    assert "no response to measure" in section_of(deaf, photographs).reason
