"""What an out-of-memory error says about tiles. The errors are real: more memory is asked for than any machine has."""

import pytest
import torch

from smtool.devices import is_out_of_memory
from smtool.errors import OutOfMemory
from smtool.image_shape import ImageSize
from smtool.inference.tile_advice import advising_tiles, decoding_bytes
from smtool.networks.sd_vae import SDVAE
from smtool.networks.shapes_only import shapes_only
from smtool.tokenizers import open_tokenizer
from smtool.tokenizers.tiled import tiled

TOO_MUCH = 2**48


@pytest.fixture(scope="module")
def vae():
    return SDVAE(downsample=4, latent_channels=2, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1).build().eval()


def said(tokenizer, side: int, batch: str | None = "--batch") -> str:
    with pytest.raises(OutOfMemory) as error, advising_tiles(tokenizer, ImageSize(side, side), batch=batch):
        torch.empty(TOO_MUCH)
    return str(error.value)


def test_tiles_are_named_with_both_sizes(vae):
    text = said(vae, 2048)
    assert text.startswith("out of memory (")
    assert "Lower --batch, or encode and decode tiles: --tile 512, which needs about" in text
    assert "instead of" in text
    assert decoding_bytes(vae, ImageSize(2048, 2048)) / decoding_bytes(vae, ImageSize(512, 512)) == pytest.approx(16, rel=0.2)


def test_tiles_are_not_named_where_they_do_not_help(vae):
    assert said(vae, 512).endswith("Lower --batch.")
    assert said(tiled(vae, 512), 2048).endswith("Lower --batch.")
    assert said(vae, 256, batch=None).endswith("Use smaller images.")


def test_a_tokenizer_of_unknown_memory_gets_the_advice_without_sizes():
    assert said(open_tokenizer("control:crop"), 1024).endswith("Lower --batch, or encode and decode tiles: --tile 512.")


def test_the_prediction_for_stable_diffusion_is_known():
    """The widest tensors of the decoder: 256 channels at full resolution; two or three are alive at once."""
    with shapes_only():
        network = SDVAE(downsample=8, latent_channels=4).build()
    one = 256 * 256 * 256 * 4
    assert 2 * one <= decoding_bytes(network, ImageSize(256, 256)) <= 4 * one


def test_other_errors_pass_unchanged(vae):
    with pytest.raises(RuntimeError, match="shape"), advising_tiles(vae, ImageSize(1024, 1024), batch=None):
        torch.zeros(2).reshape(3)


def test_a_refused_allocation_of_the_machine_counts_as_out_of_memory():
    with pytest.raises(RuntimeError) as error:
        torch.empty(TOO_MUCH)
    assert is_out_of_memory(error.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))
