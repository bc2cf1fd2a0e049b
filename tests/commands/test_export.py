"""Exports: diffusers computes the same values and gradients, and the exported folder can be imported again."""

import json

import pytest
import torch
from diffusers import AutoencoderKL
from torch.testing import assert_close

from smtool.checkpoints import write_autoencoder
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing
from smtool.storage import read_metadata
from smtool.tokenizers import load_autoencoder

SHAPES = {
    "sd1": {"downsample": 8, "latent_channels": 4, "channels": (4, 8, 16, 16), "norm_groups": 4},
    "sd3": {"downsample": 8, "latent_channels": 16, "channels": (4, 8, 16, 16), "norm_groups": 4, "quant_convs": False},
    "f16 with attention": {
        "downsample": 16, "latent_channels": 8, "channels": (4, 4, 8, 8, 16), "norm_groups": 4, "attention": (4,),
    },
    "f32": {"downsample": 32, "latent_channels": 16, "channels": (4, 4, 8, 8, 16, 16), "norm_groups": 4},
}
STATS = {
    "sd1": LatentStats("scalar", torch.zeros(1), torch.tensor([1 / 0.18215]), 0, "published"),
    "sd3": LatentStats("scalar", torch.tensor([0.0609]), torch.tensor([1 / 1.5305]), 0, "published"),
    "f16 with attention": LatentStats("channel", torch.linspace(-1, 1, 8), torch.linspace(0.5, 2, 8), 100, "measured"),
    "f32": None,
}


def autoencoder(**config):
    with initializing(0):
        return SDVAE(**config).build().eval()


@pytest.fixture
def saved(tmp_path):
    """Writes an autoencoder with statistics; returns its path."""

    def write(stats=None, **config):
        made = autoencoder(**config)
        made.stats = stats
        write_autoencoder(tmp_path / "ckpt.safetensors", made, {})
        return tmp_path / "ckpt.safetensors"

    return write


@pytest.fixture
def smtool(command):
    """The command line in this process, which keeps the calibration of spectra from one export to the next."""

    def run(*arguments):
        code, *said = command(*map(str, arguments))
        return code, "".join(said)

    return run


def both_ways(ours, theirs, images):
    """(moments, reconstruction, gradient of the image, gradient of the first convolution) of either side."""
    for encode, decode, first in (
        (ours.encode, ours.decode, ours.encoder.conv_in.weight),
        (lambda x: theirs.encode(x).latent_dist, lambda z: theirs.decode(z).sample, theirs.encoder.conv_in.weight),
    ):
        x = images.clone().requires_grad_()
        posterior = encode(x)
        decoded = decode(posterior.mean)
        loss = decoded.square().mean() + posterior.logvar.mean()
        yield posterior.mean, posterior.logvar, decoded, *torch.autograd.grad(loss, (x, first))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_diffusers_computes_the_same_with_the_same_gradients(smtool, shape, saved, tmp_path):
    path = saved(STATS[shape], **SHAPES[shape])
    code, said = smtool("export", path, "--to", "diffusers", "--out", tmp_path / "vae")
    assert code == 0, said
    # float64: formulas are compared, and float32 rounding depends on the processor
    theirs, ours = AutoencoderKL.from_pretrained(tmp_path / "vae").eval().double(), load_autoencoder(path).double()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    for mine, expected in zip(*both_ways(ours, theirs, images), strict=True):
        # relative to the largest gradient, since gradients are small
        assert_close(mine, expected, rtol=1e-9, atol=1e-11 * expected.detach().abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_an_exported_folder_is_imported_with_weights_digest_and_statistics(smtool, shape, saved, tmp_path):
    path = saved(STATS[shape], **SHAPES[shape])
    assert smtool("export", path, "--out", tmp_path / "vae")[0] == 0
    assert smtool("export", tmp_path / "vae", "--to", "smtool", "--out", tmp_path / "back.safetensors")[0] == 0
    before, after = load_autoencoder(path), load_autoencoder(tmp_path / "back.safetensors")
    assert after.digest == before.digest
    assert before.config == after.config
    if STATS[shape] is None:
        assert after.stats is None
    else:
        z = torch.randn(1, before.latent_channels, 4, 4)
        assert_close(after.stats.normalize(z), before.stats.normalize(z))
        assert after.stats.kind == before.stats.kind


@pytest.mark.slow
def test_symmetric_padding_is_an_error_and_with_the_note_gives_the_same_function(smtool, saved, tmp_path):
    path = saved(**SHAPES["sd1"], downsample_pad="symmetric")
    code, said = smtool("export", path, "--out", tmp_path / "vae")
    assert code == 3 and "symmetric" in said and not (tmp_path / "vae").exists()
    assert smtool("export", path, "--out", tmp_path / "vae", "--symmetric")[0] == 0
    theirs, ours = AutoencoderKL.from_pretrained(tmp_path / "vae").eval(), load_autoencoder(path)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(theirs.encode(images).latent_dist.mean, ours.encode(images).mean, atol=1e-2)
        note = (tmp_path / "vae" / "README.md").read_text()
        lines = [line for line in note.splitlines() if line.startswith("    ")]
        exec("\n".join(line[4:] for line in lines), {"vae": theirs})
        assert_close(theirs.encode(images).latent_dist.mean, ours.encode(images).mean, rtol=1e-4, atol=1e-5)
    assert load_autoencoder(tmp_path / "vae").config.downsample_pad == "symmetric"


@pytest.mark.slow
def test_an_existing_file_or_folder_is_not_overwritten(smtool, saved, tmp_path):
    path = saved(**SHAPES["sd1"])
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"mine": 1}))
    code, said = smtool("export", path, "--out", tmp_path / "vae")
    assert code == 2 and "already" in said
    assert json.loads((tmp_path / "vae" / "config.json").read_text()) == {"mine": 1}
    assert smtool("export", path, "--to", "smtool", "--out", tmp_path / "folder")[0] == 2


@pytest.mark.parametrize("to", ["smtool", "diffusers"])
def test_half_stores_float16_values_that_are_read_as_float32(smtool, tmp_path, to):
    made = autoencoder(**SHAPES["sd1"])
    write_autoencoder(tmp_path / "ckpt.safetensors", made, {"recipe": {"steps": 7}, "step": 7})
    out = tmp_path / ("half.safetensors" if to == "smtool" else "half")
    assert smtool("export", tmp_path / "ckpt.safetensors", "--to", to, "--half", "--out", out)[0] == 0
    file = out if to == "smtool" else out / "diffusion_pytorch_model.safetensors"
    assert file.stat().st_size < 0.55 * (tmp_path / "ckpt.safetensors").stat().st_size
    opened = load_autoencoder(out)
    for name, weight in opened.state_dict().items():
        assert weight.dtype == torch.float32
        assert_close(weight, made.state_dict()[name].half().float(), rtol=0, atol=0)
    if to == "smtool":
        metadata = read_metadata(file)
        assert (metadata["step"], metadata["recipe"], metadata["digest"]) == (7, {"steps": 7}, opened.digest)


def test_half_refuses_weights_beyond_its_range(smtool, tmp_path):
    made = autoencoder(**SHAPES["sd1"])
    with torch.no_grad():
        made.decoder.conv_in.bias[0] = 7e4
    write_autoencoder(tmp_path / "ckpt.safetensors", made, {})
    out = tmp_path / "half.safetensors"
    code, said = smtool("export", tmp_path / "ckpt.safetensors", "--to", "smtool", "--half", "--out", out)
    assert code == 3
    assert "7e+04 is beyond float16's largest, 65,504" in said
    assert not out.exists()
