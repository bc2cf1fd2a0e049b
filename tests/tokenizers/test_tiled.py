"""Tiles: equal to the whole image where they must be, close elsewhere, refused where they cannot work."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from smtool.errors import RecipeError
from smtool.image_shape import ImageSize
from smtool.networks.sd_vae import SDVAE
from smtool.networks.taesd import TAESD
from smtool.networks.tokenizer import Tokenizer, point_posterior
from smtool.randomness import initializing
from smtool.tokenizers import open_tokenizer
from smtool.tokenizers.tiled import Tiled, _weights, blended, receptive_field, tile_starts, tiled


class Convolutional(Tokenizer):
    """Convolutions only, f2: a stride-2 convolution with kernel 4, and its transpose followed by a kernel of 5."""

    downsample, latent_channels, deterministic, label = 2, 4, True, "convolutional"

    def __init__(self) -> None:
        super().__init__()
        with initializing(0, "tiles"):
            self.down = nn.Conv2d(3, 4, 4, stride=2, padding=1)
            self.network = nn.ModuleList([self.down, up := nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1),
                                          last := nn.Conv2d(3, 3, 5, padding=2)])
        self.up = nn.Sequential(up, last)
        self.requires_grad_(False)

    @property
    def digest(self) -> str:
        return "0" * 64

    @property
    def architecture(self) -> str:
        return "convolutions"

    def encode(self, images):
        return point_posterior(self.down(images))

    def decode(self, latents):
        return self.up(latents)


@pytest.fixture(scope="module")
def vae():
    with initializing(0, "vae"):
        made = SDVAE(downsample=2, latent_channels=2, channels=(8, 8), norm_groups=4, blocks_per_level=1).build()
    return made.eval().requires_grad_(False)


def photo(height: int, width: int) -> torch.Tensor:
    from skimage.data import astronaut

    return torch.from_numpy(np.array(astronaut()[100 : 100 + height, 150 : 150 + width])).permute(2, 0, 1)[None] / 127.5 - 1


def reach_by_gradient(function, x: torch.Tensor) -> int:
    """Largest number of values along a side of x that one output value in the middle depends on."""
    x = x.requires_grad_(True)
    y = function(x)
    sizes = []
    for row in range(y.shape[-2] // 2 - 2, y.shape[-2] // 2 + 2):
        (gradient,) = torch.autograd.grad(y[0, :, row, y.shape[-1] // 2].sum(), x, retain_graph=True)
        touched = gradient[0].abs().sum((0, 2)).nonzero().flatten()
        sizes.append(int(touched[-1] - touched[0]) + 1)
    return max(sizes)


def test_the_receptive_field_is_that_of_the_gradient():
    """The dependence of one value on the input, found by autograd: encoder in pixels, decoder in cells of 2 pixels."""
    network = Convolutional()
    field = receptive_field(network)
    encoder = reach_by_gradient(network.down, torch.randn(1, 3, 64, 64))
    decoder = 2 * reach_by_gradient(network.up, torch.randn(1, 4, 32, 32))
    assert max(encoder, decoder) <= field <= max(encoder, decoder) + 2


def test_the_receptive_field_of_an_sd_vae_is_that_of_its_convolutions(vae):
    """With GroupNorm and attention replaced by the identity, only convolutions are left."""
    decoder = SDVAE(downsample=2, latent_channels=2, channels=(8, 8), norm_groups=4, blocks_per_level=1).build().decoder
    for module in decoder.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm) or type(child).__name__ == "Attention":
                setattr(module, name, nn.Identity())
    cells = reach_by_gradient(decoder, torch.randn(1, 2, 48, 48))
    assert 2 * cells - 2 <= receptive_field(vae) <= 2 * cells + 2


def test_plain_arithmetic_has_a_field_of_one_cell():
    assert receptive_field(open_tokenizer("pixels")) == 1
    assert receptive_field(open_tokenizer("control:crop")) == open_tokenizer("control:crop").downsample


def test_one_tile_that_covers_the_image_gives_the_same_bits(vae):
    images = photo(48, 64)
    whole = vae.encode(images)
    made = Tiled(vae, 64)
    assert torch.equal(made.encode(images).mean, whole.mean)
    assert torch.equal(made.encode(images).logvar, whole.logvar)
    assert torch.equal(made.decode(whole.mean), vae.decode(whole.mean))


def test_pointwise_functions_are_exact_in_tiles():
    pixels, images = open_tokenizer("pixels"), photo(200, 136)
    made = tiled(pixels, 64)
    torch.testing.assert_close(made.encode(images).mean, pixels.encode(images).mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(made.decode(images), images, rtol=0, atol=1e-6)


def test_convolutions_in_tiles_differ_only_near_the_borders_of_tiles():
    """In the middle of an overlap both tiles are exact, so the blend is; near a tile's border its weight is almost 0."""
    network, x = Convolutional(), torch.randn(1, 4, 40, 40, generator=torch.Generator().manual_seed(0))
    whole, parts = network.decode(x), Tiled(network, 64).decode(x)
    error = (whole - parts).abs().amax((0, 1))
    starts = tile_starts(40, 32, 1)
    assert starts == [0, 8]
    borders = [2 * 8, 2 * 32]      # where the second tile begins and the first ends, in pixels
    near = torch.tensor([min(abs(p + 0.5 - border) for border in borders) < 6 for p in range(80)])
    assert error[~near][:, ~near].max() < 1e-5
    assert 0 < error.max() < 0.05 * whole.std()


def test_a_difference_between_tiles_is_spread_over_their_overlap():
    """A function that adds the mean of what it sees, as normalization does: no step, where tiles side by side have one of 24."""
    ramp = torch.arange(96.0).expand(1, 1, 64, 96)
    shift = blended(lambda part, *_: part + part.mean(), ramp, tile=64, step=1, scale=1) - ramp
    starts = tile_starts(96, 64, 1)
    assert starts == [0, 32]
    steps = shift.diff(dim=-1)[0, 0, 0]
    assert steps.sum() == pytest.approx(32, abs=1e-3)      # the means of the two tiles differ by 32
    assert steps.max() == pytest.approx(32 * np.pi / 2 / 32, rel=0.01)      # the steepest step of sin^2 over 32 columns
    assert (steps > -1e-4).all()


@pytest.mark.parametrize(("length", "tile", "step"), [(64, 32, 8), (72, 32, 8), (65, 16, 1), (1000, 512, 8), (31, 32, 1)])
def test_tiles_cover_a_side_and_their_weights_add_up_to_one(length, tile, step):
    starts = tile_starts(length, tile, step)
    assert starts[0] == 0
    assert starts[-1] + min(tile, length) == length
    assert all(start % step == 0 for start in starts)
    assert all(after - before <= tile - tile // 4 for before, after in pairwise(starts))
    total = np.zeros(length)
    for start, weight in zip(starts, _weights(starts, tile, length, 1), strict=True):
        total[start : start + len(weight)] += weight.numpy()
        assert (weight >= 0).all()
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_blend_of_identities_is_the_image():
    x = torch.randn(2, 3, 50, 37, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(blended(lambda part, *_: part, x, tile=16, step=1, scale=1), x, rtol=0, atol=1e-5)


def test_the_digest_and_the_architecture_state_the_tile(vae):
    one, other = Tiled(vae, 64), Tiled(vae, 96)
    assert len({vae.digest, one.digest, other.digest}) == 3
    assert one.architecture.endswith("in tiles of 64 px")
    assert tiled(vae, None) is vae


def test_a_tile_below_the_receptive_field_is_refused_with_one_that_fits(vae):
    field = receptive_field(vae)
    with pytest.raises(RecipeError, match=rf"--tile 16 is smaller than the receptive field of .*, {field} px") as error:
        tiled(vae, 16)
    fits = int(error.value.hint.split()[2])
    assert fits >= field
    assert isinstance(tiled(vae, fits), Tiled)


def test_a_tile_that_cells_do_not_fill_is_refused(vae):
    with pytest.raises(RecipeError, match=r"--tile 65: a tile of .* is a multiple of its downsampling factor 2"):
        tiled(vae, 65)


def test_an_encoder_of_one_image_size_is_refused(vae):
    fixed = Convolutional()
    fixed.image_size = ImageSize(224, 224)
    with pytest.raises(RecipeError, match="accepts only images of 224 px"):
        tiled(fixed, 64)


def test_taesd_at_a_tile_of_its_field_is_close_to_the_whole():
    with initializing(0, "taesd"):
        network = TAESD(latent_channels=4).build().eval().requires_grad_(False)
    assert 100 < receptive_field(network) < 400
