"""`module:attribute`: objects and factories in the current folder, and output types of diffusers' encoders."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from smtool.errors import CheckpointError, RecipeError
from smtool.tokenizers import open_tokenizer

MODULE = '''
import torch, torch.nn.functional as F
from diffusers import AutoencoderKL

class Pool:
    def encode(self, x): return F.avg_pool2d(x, 8)
    def decode(self, z): return F.interpolate(z, scale_factor=8.0)

class EncoderOnly:
    def encode(self, x): return F.avg_pool2d(x, 4)

class Tokens(EncoderOnly):
    def encode(self, x): return super().encode(x).flatten(2).mT

class Bytes(Pool):
    def decode(self, z): return 127.5 * super().decode(z) + 127.5

class Unit(Pool):
    def decode(self, z): return 0.5 * super().decode(z) + 0.5

class Small(Pool):
    def decode(self, z): return z

class Odd(Pool):
    def encode(self, x): return F.interpolate(x, size=(7, 7))

class Crashes(Pool):
    def encode(self, x): raise KeyError("no such layer")

pool = Pool()
number = 3

def vae():
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(block_out_channels=(32, 32), **blocks)
'''


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "codecs_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "codecs_of_mine", raising=False)


@pytest.mark.parametrize("attribute", ["pool", "Pool"])
def test_an_object_and_a_factory_are_the_same(attribute):
    tokenizer = open_tokenizer(f"codecs_of_mine:{attribute}")
    assert (tokenizer.downsample, tokenizer.latent_channels, tokenizer.can_decode, tokenizer.deterministic) == (8, 3, True, True)
    x = torch.rand(2, 3, 16, 24) * 2 - 1
    assert torch.equal(tokenizer.encode(x).mean, F.avg_pool2d(x, 8))
    assert tokenizer.decode(tokenizer.encode(x).mean).shape == x.shape
    assert tokenizer.network is None
    assert tokenizer.digest == open_tokenizer("codecs_of_mine:Pool", image_size=32).digest


def test_output_types_of_diffusers_are_supported():
    tokenizer = open_tokenizer("codecs_of_mine:vae", image_size=32)
    theirs = tokenizer.network
    assert isinstance(theirs, AutoencoderKL)
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        posterior, expected = tokenizer.encode(x), theirs.encode(x).latent_dist
        assert torch.equal(posterior.mean, expected.mean) and torch.equal(posterior.logvar, expected.logvar)
        assert torch.equal(tokenizer.decode(posterior.mean), theirs.decode(expected.mean).sample)
    assert (tokenizer.deterministic, tokenizer.downsample, tokenizer.latent_channels) == (False, 2, 4)


def test_an_encoder_alone_is_enough():
    tokenizer = open_tokenizer("codecs_of_mine:EncoderOnly", image_size=32)
    assert (tokenizer.can_decode, tokenizer.downsample) == (False, 4)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("Tokens", r"encode returns torch.float32 \(3, 64, 3\), but latents \(B, C, h, w\) are needed[\s\S]*no spectrum"),
        ("Bytes", "decode returns values from 0 to 255"),
        ("Unit", "decode returns values from 0 to 1 for images from black to white"),
        ("Small", r"decode returns \(3, 3, 4, 4\) for images of \(3, 3, 32, 32\)"),
        ("Odd", "with an integer f is needed"),
        ("Crashes", "raised KeyError: 'no such layer'"),
    ],
)
def test_wrong_shapes_and_ranges_are_refused(attribute, message):
    with pytest.raises(CheckpointError, match=message):
        open_tokenizer(f"codecs_of_mine:{attribute}", image_size=32)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("codecs_of_mine:absent", "has no attribute 'absent'"),
        ("absent:x", "No module named"),
        ("codecs_of_mine:number", "no method"),
    ],
)
def test_missing_modules_attributes_and_methods_are_errors(what, message):
    with pytest.raises(RecipeError, match=message):
        open_tokenizer(what)
