"""The SD-VAE compared with diffusers' AutoencoderKL with the same weights (released-code.md#sd-vae)."""

import pytest
import torch
from diffusers import AutoencoderKL
from torch.testing import assert_close

from smtool.networks.sd_vae import SDVAE, Autoencoder

TINY = {"downsample": 4, "latent_channels": 3, "channels": (8, 8, 16), "norm_groups": 4, "blocks_per_level": 1}


def diffusers_twin(autoencoder: Autoencoder) -> AutoencoderKL:
    """diffusers' network with our weights; for symmetric padding, the padding of its downsamplers is changed.

    Source: released-code.md#keys-of-diffusers.
    """
    config = autoencoder.config
    attends = ["Attn" if level in config.attention else "" for level in range(len(config.channels))]
    twin = AutoencoderKL(
        block_out_channels=config.channels,
        down_block_types=tuple(f"{attend}DownEncoderBlock2D" for attend in attends),
        up_block_types=tuple(f"{attend}UpDecoderBlock2D" for attend in reversed(attends)),
        layers_per_block=config.blocks_per_level,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        use_quant_conv=config.quant_convs,
        use_post_quant_conv=config.quant_convs,
    )
    if config.downsample_pad == "symmetric":
        for block in twin.encoder.down_blocks[:-1]:
            block.downsamplers[0].padding = 1
            block.downsamplers[0].conv.padding = (1, 1)
    twin.load_state_dict(autoencoder.state_dict(), strict=True)
    return twin.double()


@pytest.mark.parametrize("pad", ["asymmetric", "symmetric"])
@pytest.mark.parametrize(
    "shape",
    [{}, {"blocks_per_level": 2, "quant_convs": False}, {"attention": (2,)}, {"attention": (0, 1), "blocks_per_level": 2}],
)
def test_forward_and_gradients_equal_those_of_diffusers(pad, shape):
    autoencoder = SDVAE(**{**TINY, **shape}, downsample_pad=pad).build().double()
    twin = diffusers_twin(autoencoder)
    ours = torch.randn(2, 3, 16, 24, dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    posterior, expected = autoencoder.encode(ours), twin.encode(theirs).latent_dist
    # float64 on both sides: only the order of additions differs
    close = {"rtol": 1e-9, "atol": 1e-11}
    assert_close(posterior.mean, expected.mean, **close)
    assert_close(posterior.logvar, expected.logvar, **close)
    noise = torch.randn_like(posterior.mean)
    decoded = autoencoder.decode(posterior.sample(noise))
    expected_decoded = twin.decode(expected.mean + expected.std * noise).sample
    assert_close(decoded, expected_decoded, **close)
    weights = torch.randn_like(decoded)
    ours_gradients = torch.autograd.grad((decoded * weights).sum(), [ours, *autoencoder.parameters()])
    theirs_parameters = dict(twin.named_parameters())
    theirs_gradients = torch.autograd.grad(
        (expected_decoded * weights).sum(), [theirs, *(theirs_parameters[name] for name, _ in autoencoder.named_parameters())]
    )
    for ours_gradient, theirs_gradient in zip(ours_gradients, theirs_gradients, strict=True):
        assert_close(ours_gradient, theirs_gradient, **close)


def test_the_two_paddings_are_different_encoders_and_the_same_decoder():
    asymmetric = SDVAE(**TINY).build()
    symmetric = SDVAE(**TINY, downsample_pad="symmetric").build()
    symmetric.load_state_dict(asymmetric.state_dict())
    images = torch.randn(1, 3, 16, 16)
    assert not torch.allclose(asymmetric.encode(images).mean, symmetric.encode(images).mean, atol=1e-3)
    latents = torch.randn(1, 3, 4, 4)
    assert torch.equal(asymmetric.decode(latents), symmetric.decode(latents))


def test_last_layers_are_the_last_convolutions_of_encoder_and_decoder():
    autoencoder = SDVAE(**TINY).build()
    names = {id(parameter): name for name, parameter in autoencoder.named_parameters()}
    assert names[id(autoencoder.encoder_last_layer)] == "encoder.conv_out.weight"
    assert names[id(autoencoder.decoder_last_layer)] == "decoder.conv_out.weight"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"downsample": 4}, "give `channels`"),
        ({"downsample": 8, "channels": (32, 64)}, "downsample = 2.*but downsample is 8"),
        ({"downsample": 2, "channels": (48, 64)}, "width 48 .* norm_groups = 32; norm_groups = 16 divides"),
        ({"downsample": 1, "channels": (0,)}, "width 0"),
        ({"downsample": 0}, "greater than or equal to 1"),
        ({"latent_chanels": 4}, "Extra inputs"),
        ({"attention": (4,)}, r"levels \(4,\), but there are levels 0 to 3"),
    ],
)
def test_an_invalid_table_is_an_error_with_valid_values(keys, message):
    with pytest.raises(ValueError, match=message):
        SDVAE(**keys)


def test_published_widths_are_the_default():
    assert SDVAE().channels == (128, 256, 512, 512)
