"""TAESD's two files, made from a restatement of the author's layers, compared with these layers."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from smtool.checkpoints import write_autoencoder
from smtool.checkpoints.foreign.taesd import without_half
from smtool.errors import CheckpointError
from smtool.networks.taesd import TAESD, TinyAutoencoder
from smtool.tokenizers import load_autoencoder, open_tokenizer

WIDTH = 8


def load_tiny(path) -> TinyAutoencoder:
    opened = open_tokenizer(path)
    assert isinstance(opened, TinyAutoencoder)
    return opened


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())

    def forward(self, x):
        return (self.conv(x) + x).relu()


class Clamp(nn.Module):
    def forward(self, x):
        return 3 * torch.tanh(x / 3)


def conv(before: int = WIDTH, after: int = WIDTH, **options) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, **options)


def encoder(channels: int) -> nn.Sequential:
    shrinking = [layer for _ in range(3) for layer in (conv(stride=2, bias=False), Block(), Block(), Block())]
    return nn.Sequential(conv(3), Block(), *shrinking, conv(after=channels))


def decoder(channels: int) -> nn.Sequential:
    growing = [
        layer for _ in range(3) for layer in (Block(), Block(), Block(), nn.Upsample(scale_factor=2), conv(bias=False))
    ]
    return nn.Sequential(Clamp(), conv(channels), nn.ReLU(), *growing, Block(), conv(after=3))


@pytest.fixture
def halves(tmp_path):
    torch.manual_seed(0)
    halves = encoder(16), decoder(16)
    torch.save(halves[0].state_dict(), tmp_path / "taef1_encoder.pth")
    torch.save(halves[1].state_dict(), tmp_path / "taef1_decoder.pth")
    return halves


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_either_half_opens_both(half, halves, tmp_path):
    """The author's layers use images in [0, 1]."""
    tokenizer = open_tokenizer(str(tmp_path / f"taef1_{half}.pth"), image_size=32)
    assert (tokenizer.label, tokenizer.downsample, tokenizer.latent_channels) == ("taef1", 8, 16)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        latents = halves[0](x)
        assert latents.abs().max() > 1e-3
        assert_close(tokenizer.encode(2 * x - 1).mean, latents)
        assert_close(tokenizer.decode(9 * latents), 2 * halves[1](9 * latents) - 1)      # large enough for the clamp to act


def test_safetensors_halves_are_opened_as_well(halves, tmp_path):
    for name, half in zip(("encoder", "decoder"), halves, strict=True):
        save_file(half.state_dict(), tmp_path / f"taesd_{name}.safetensors")
    assert open_tokenizer(str(tmp_path / "taesd_decoder.safetensors"), image_size=32).label == "taesd"


@pytest.mark.parametrize("layout", ["pooled", "f32"])
def test_other_layouts_are_inferred_from_names(layout, tmp_path):
    made = TAESD(layout=layout, latent_channels=6, width=8).build()
    for name, half in (("encoder", made.encoder), ("decoder", made.decoder)):
        torch.save({key: value.half() for key, value in half.state_dict().items()}, tmp_path / f"tae_{name}.pth")
    opened = load_tiny(tmp_path / "tae_decoder.pth")
    assert (opened.config, opened.label) == (made.config, "tae")
    assert all(torch.equal(value, made.half().state_dict()[name].float()) for name, value in opened.state_dict().items())


def test_a_folder_with_one_pair_is_that_pair(halves, tmp_path):
    assert open_tokenizer(tmp_path).digest == open_tokenizer(tmp_path / "taef1_decoder.pth").digest
    for half in ("encoder", "decoder"):
        (tmp_path / f"other_{half}.pth").write_bytes((tmp_path / f"taef1_{half}.pth").read_bytes())
    with pytest.raises(CheckpointError, match="this folder holds no autoencoder"):
        open_tokenizer(tmp_path)


def test_it_is_written_and_read_as_a_checkpoint_of_smtool(halves, tmp_path):
    opened = load_tiny(tmp_path / "taef1_encoder.pth")
    write_autoencoder(tmp_path / "ckpt.safetensors", opened, {"step": 3})
    assert open_tokenizer(tmp_path / "ckpt.safetensors").digest == opened.digest
    with pytest.raises(CheckpointError, match="is TAESD f8, 16 channels, plain, but only AutoencoderKL can be opened here"):
        load_autoencoder(tmp_path / "ckpt.safetensors")


@pytest.mark.parametrize(
    ("stem", "label"),
    [("taesd_encoder", "taesd"), ("decoder-f1", "f1"), ("my-autoencoder", "my-autoencoder"), ("encoder", "encoder")],
)
def test_the_label_does_not_contain_the_half(stem, label):
    assert without_half(stem) == label


def test_the_error_for_one_half_names_the_missing_file(halves, tmp_path):
    (tmp_path / "taef1_decoder.pth").unlink()
    with pytest.raises(CheckpointError, match=r"is only the encoder of TAESD; its decoder is missing[\s\S]*taesd_decoder\.pth"):
        open_tokenizer(str(tmp_path / "taef1_encoder.pth"))
    (tmp_path / "taef1_encoder.pth").rename(tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match="its decoder cannot be found by name"):
        open_tokenizer(str(tmp_path / "half.pth"))


def test_another_file_under_the_other_halfs_name_is_refused(halves, tmp_path):
    torch.save(halves[0].state_dict(), tmp_path / "taef1_decoder.pth")
    with pytest.raises(CheckpointError, match=r"taef1_decoder\.pth beside it is not such a decoder"):
        open_tokenizer(str(tmp_path / "taef1_encoder.pth"))


def test_a_variant_with_more_layers_is_refused_by_name(halves, tmp_path):
    torch.save({**halves[0].state_dict(), "5.pool.0.weight": torch.zeros(1)}, tmp_path / "taef1_encoder.pth")
    with pytest.raises(CheckpointError, match=r"do not fit the architecture[\s\S]*1 unexpected, first encoder\.5\.pool\.0"):
        open_tokenizer(str(tmp_path / "taef1_encoder.pth"))
