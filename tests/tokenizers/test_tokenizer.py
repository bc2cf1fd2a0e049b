"""Attributes of tokenizers of all origins, and errors for images of unsuitable sizes."""

import hashlib

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from smtool.checkpoints import write_autoencoder
from smtool.errors import CheckpointError
from smtool.networks.sd_vae import SDVAE
from smtool.tokenizers import open_tokenizer

SECTION = SDVAE(downsample=4, latent_channels=3, channels=(32, 32, 64), blocks_per_level=1)


@pytest.fixture
def run(tmp_path):
    write_autoencoder(tmp_path / "dsm" / "ckpt.safetensors", SECTION.build(), {"recipe": {"seed": 3}})
    return tmp_path / "dsm"


def test_a_run_of_smtool(run):
    tokenizer = open_tokenizer(str(run))
    assert (tokenizer.label, tokenizer.source, tokenizer.recipe) == ("dsm", str(run), {"seed": 3})
    assert (tokenizer.downsample, tokenizer.latent_channels, tokenizer.deterministic, tokenizer.can_decode) == (4, 3, False, True)
    assert tokenizer.architecture == "AutoencoderKL f4, 3 channels, asymmetric padding"
    assert len(tokenizer.digest) == len(hashlib.sha256().hexdigest())
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())


def test_a_foreign_file_has_the_digest_of_the_same_weights_elsewhere(tmp_path):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    theirs = AutoencoderKL(block_out_channels=(32, 32), **blocks)
    theirs.save_pretrained(tmp_path / "vae")
    save_file(theirs.state_dict(), tmp_path / "vae.safetensors")
    torch.save(theirs.state_dict(), tmp_path / "vae.pt")
    names = ("vae", "vae.safetensors,norm_groups=32", "vae.pt,norm_groups=32")
    tokenizers = [open_tokenizer(str(tmp_path / name)) for name in names]
    assert len({tokenizer.digest for tokenizer in tokenizers}) == 1
    assert [tokenizer.recipe for tokenizer in tokenizers] == [{}, {}, {}]
    assert tokenizers[0].digest != open_tokenizer(str(tmp_path / "vae"), downsample_pad="symmetric").digest


def test_the_error_for_images_of_a_wrong_size_names_sizes_that_fit(run):
    tokenizer = open_tokenizer(str(run))
    assert tokenizer.latent_shape(16, 24) == (3, 4, 6)
    with pytest.raises(ValueError, match="smaller than one latent cell of dsm, 4x4 pixels"):
        tokenizer.encode(torch.zeros(1, 3, 2, 16))
    with pytest.raises(ValueError, match="multiples of 4, such as 16x20"):
        tokenizer.encode(torch.zeros(1, 3, 18, 20))


def test_an_unknown_name_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no such file, folder or run"):
        open_tokenizer("sd-vae")
