"""The epsilon-VAE: layers restated with torch's functions, Euler steps, start noise by position, tiles, and bad tables."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch.testing import assert_close

from smtool.networks.denoiser import TimedBlock
from smtool.networks.epsilon_vae import EpsilonVAE
from smtool.networks.noise_field import BLOCK, noise_field
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing
from smtool.tokenizers.tiled import Tiled

TINY = {
    "downsample": 4, "latent_channels": 2, "channels": (8, 8, 16), "norm_groups": 4, "blocks_per_level": 1, "denoiser_blocks": 1,
}


def network(**keys):
    with initializing(0, "test"):
        return EpsilonVAE(**TINY, **keys).build().double()


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_block_scales_and_shifts_by_the_time():
    with initializing(0, "block"):
        block = TimedBlock(8, 16, groups=4, embedding=12).double()
    x, embedded = _normal(2, 8, 6, 5), _normal(2, 12)
    weights = dict(block.named_parameters())
    found = block(x, embedded)
    for image in range(2):
        h = F.group_norm(x[image : image + 1], 4, weights["norm1.weight"], weights["norm1.bias"], eps=1e-6)
        h = F.conv2d(h * torch.sigmoid(h), weights["conv1.weight"], weights["conv1.bias"], padding=1)
        h = F.group_norm(h, 4, weights["norm2.weight"], weights["norm2.bias"], eps=1e-6)
        change = weights["time.weight"] @ (embedded[image] * torch.sigmoid(embedded[image])) + weights["time.bias"]
        for channel in range(16):
            h[0, channel] = h[0, channel] * (1 + change[channel]) + change[16 + channel]
        h = F.conv2d(h * torch.sigmoid(h), weights["conv2.weight"], weights["conv2.bias"], padding=1)
        h = h + F.conv2d(x[image : image + 1], weights["conv_shortcut.weight"], weights["conv_shortcut.bias"])
        assert_close(found[image : image + 1], h)


def test_the_velocity_depends_on_x_t_the_time_and_every_latent_cell_of_its_own_pixels():
    model = network(mid_attention=False)
    x_t, t, z = _normal(1, 3, 32, 32), torch.full((1,), 0.3, dtype=torch.float64), _normal(1, 2, 8, 8)
    before = model.velocity(x_t, t, z)
    assert before.shape == x_t.shape and before.dtype == torch.float64
    assert not torch.allclose(model.velocity(x_t, t + 0.1, z), before)
    assert not torch.allclose(model.velocity(x_t + 0.1, t, z), before)
    seen = []
    model.decoder.conv_in.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.velocity(x_t, t, z)
    condition = F.conv2d(z, model.post_quant_conv.weight, model.post_quant_conv.bias)
    assert torch.equal(seen[0][:, :3], x_t)
    for i in range(0, 32, 5):
        for j in range(0, 32, 7):
            assert_close(seen[0][0, 3:, i, j], condition[0, :, i // 4, j // 4])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_decoding_takes_equal_euler_steps_from_the_noise_at_time_1(steps):
    model, z = network(sampling_steps=steps), _normal(2, 2, 4, 6)
    x = noise_field(3, 0, 0, 16, 24, dtype=torch.float64, device="cpu").repeat(2, 1, 1, 1)
    for step in range(steps):
        time = 1 - step / steps
        x = x - (1 / steps) * model.velocity(x, torch.full((2,), time, dtype=torch.float64), z)
    assert_close(model.decode(z), x)


def test_steps_through_a_constant_velocity_land_on_the_image():
    """The velocity noise - x of one image takes any number of steps from the noise to x."""
    model = network(sampling_steps=3)
    x, noise = _normal(1, 3, 16, 16), noise_field(3, 0, 0, 16, 16, dtype=torch.float64, device="cpu")
    model.velocity = lambda x_t, t, latents: noise[None] - x
    assert_close(model.decode(_normal(1, 2, 4, 4)), x)


def test_a_decoding_does_not_depend_on_the_batch_and_is_the_same_each_time():
    model, z = network(sampling_steps=2), _normal(5, 2, 4, 4)
    whole = model.decode(z)
    assert torch.equal(model.decode(z), whole)
    assert_close(torch.cat([model.decode(one[None]) for one in z]), whole, rtol=0, atol=1e-12)
    assert not torch.allclose(whole[0], whole[1])


def test_the_start_noise_is_that_of_the_position_and_is_standard_normal():
    side = 2 * BLOCK + 10
    whole = noise_field(3, 0, 0, side, side, dtype=torch.float64, device="cpu")
    windows = ((0, 0, 5, 5), (BLOCK - 3, 1, 9, 2 * BLOCK), (BLOCK, BLOCK, BLOCK, 7), (side - 1, 0, 1, side))
    for top, left, height, width in windows:
        part = noise_field(3, top, left, height, width, dtype=torch.float64, device="cpu")
        assert torch.equal(part, whole[:, top : top + height, left : left + width])
    values = whole.flatten()
    assert abs(values.mean()) < 5 / math.sqrt(len(values)) and abs(values.var() - 1) < 5 * math.sqrt(2 / len(values))
    assert values.unique().numel() == values.numel()      # no block repeats another
    with pytest.raises(ValueError, match="begins at row and column 0 or later, but is at -1, 0"):
        noise_field(3, -1, 0, 4, 4, dtype=torch.float64, device="cpu")


def test_noise_drawn_in_inference_mode_can_be_trained_with():
    with torch.inference_mode():
        noise_field(4, 3 * BLOCK, 0, 2, 2, dtype=torch.float32, device="cpu")
    noise = noise_field(4, 3 * BLOCK, 0, 2, 2, dtype=torch.float32, device="cpu")
    assert (noise * torch.ones(1, requires_grad=True)).sum().requires_grad


def test_tiles_continue_the_noise_of_the_whole_image():
    """With a denoiser that copies its noise, tiles and whole image decode to the same."""
    model = network()
    model.velocity = lambda x_t, t, latents: 0.5 * x_t
    z = _normal(1, 2, 40, 36)
    tiled = Tiled(model, 64)
    assert_close(tiled.decode(z), model.decode(z), rtol=0, atol=1e-6)


def test_the_encoder_is_that_of_the_sd_vae():
    model = network()
    keys = {key: value for key, value in TINY.items() if not key.startswith("denoiser")}
    plain = SDVAE(**keys).build().double()
    own = {name: value for name, value in model.state_dict().items() if name.startswith(("encoder.", "quant_conv."))}
    missing = plain.load_state_dict(own, strict=False)
    assert not missing.unexpected_keys and all(not key.startswith(("encoder.", "quant_conv.")) for key in missing.missing_keys)
    images = _normal(2, 3, 16, 24)
    assert torch.equal(model.encode(images).mean, plain.encode(images).mean)


def test_the_digest_depends_on_the_number_of_steps():
    one, two = network(), network(sampling_steps=2)
    two.load_state_dict(one.state_dict())
    assert one.digest != two.digest and "2 steps" in two.architecture


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"denoiser_channels": (8, 8, 8, 8)}, "the denoiser has 4 levels, but the encoder has 3"),
        ({"denoiser_channels": (8, 6)}, "width 6 is not a multiple of norm_groups = 4"),
        ({"attention": (5,)}, "levels 0 to 2"),
        ({"sampling_steps": 0}, "sampling_steps"),
        ({"channels": (8, 8)}, "2 widths halve the image 1 times"),
    ],
)
def test_a_bad_table_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        EpsilonVAE(**{**TINY, **keys})
