"""Single files of diffusers weights, and errors for other files."""

import json
import os
import pickle

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch.testing import assert_close

from smtool.errors import CheckpointError
from smtool.tokenizers import load_autoencoder

# float64, because rounding in float32 differs between processors
IMAGES = torch.randn(1, 3, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
SHAPES = {
    "SD": {},
    "SDXL": {"scaling_factor": 0.13025},
    "SD3": {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 1.5305},
    "FLUX": {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.1159},
    "attention": {
        "down_block_types": ("DownEncoderBlock2D",) * 2 + ("AttnDownEncoderBlock2D",),
        "up_block_types": ("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 2,
    },
}


def tiny(**config) -> AutoencoderKL:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    return AutoencoderKL(**{"block_out_channels": (32, 32, 64), "layers_per_block": 2, **blocks, **config})


def written(theirs: AutoencoderKL, folder, suffix: str):
    path = folder / f"vae{suffix}"
    if suffix == ".safetensors":
        save_file(theirs.state_dict(), path)
    else:
        torch.save(theirs.state_dict(), path)
    return path


@pytest.mark.parametrize(("shape", "suffix"), [*((shape, ".safetensors") for shape in SHAPES), ("SD", ".bin"), ("FLUX", ".pt")])
def test_a_single_file_computes_what_diffusers_computes_with_gradients(shape, suffix, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = tiny(**SHAPES[shape])
    ours = load_autoencoder(f"{written(theirs, tmp_path, suffix)},norm_groups=32").double()
    theirs.double()
    assert ours.config.attention == ((2,) if shape == "attention" else ())
    assert (ours.config.quant_convs, ours.stats) == ("use_quant_conv" not in SHAPES[shape], None)
    found, expected = ours.decode(ours.encode(IMAGES).mean), theirs.decode(theirs.encode(IMAGES).latent_dist.mean).sample
    assert_close(found, expected, **CLOSE)
    assert_close(ours.encode(IMAGES).logvar, theirs.encode(IMAGES).latent_dist.logvar, **CLOSE)
    found.square().sum().backward()
    expected.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == {name for name, _ in ours.named_parameters()}
    largest = max(gradient.abs().max().item() for gradient in gradients.values() if gradient is not None)
    for name, parameter in ours.named_parameters():
        # a bias before a norm has no effect: its gradient is rounding error of the order of the other gradients
        assert_close(parameter.grad, gradients[name], rtol=1e-9, atol=1e-12 * largest, msg=name)


def test_a_config_beside_the_file_adds_what_weights_do_not_show(tmp_path):
    theirs = tiny(block_out_channels=(8, 8, 16), norm_num_groups=4, scaling_factor=0.5, shift_factor=0.25)
    path = written(theirs, tmp_path, ".safetensors")
    words = r"weights do not show the number of norm groups.*\(8, 8, 16\)[\s\S]*,norm_groups=32"
    with pytest.raises(CheckpointError, match=words):
        load_autoencoder(path)
    theirs.save_config(tmp_path)
    ours = load_autoencoder(path)
    assert (ours.stats.mean.item(), ours.stats.std.item()) == (0.25, 2.0)
    ours.double(), theirs.double()
    with torch.no_grad():
        assert_close(ours.encode(IMAGES).mean, theirs.encode(IMAGES).latent_dist.mean, **CLOSE)


def test_a_config_of_another_model_is_refused(tmp_path):
    path = written(tiny(), tmp_path, ".safetensors")
    tiny(latent_channels=16).save_config(tmp_path)
    with pytest.raises(CheckpointError, match="latent_channels is 16, but 4 in the weights"):
        load_autoencoder(path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel", "latent_channels": 16}))
    assert load_autoencoder(f"{path},norm_groups=32").latent_channels == 4


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"state_dict": Runs(tmp_path / "ran")}, tmp_path / "vae.pt")
    with pytest.raises(CheckpointError, match=r"would run code \(\w+\.mkdir\)"):
        load_autoencoder(tmp_path / "vae.pt")
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(Runs(tmp_path / "ran"), protocol=4))
    with pytest.raises(CheckpointError, match="not a readable file of plain tensors"):
        load_autoencoder(tmp_path / "bare.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(share, suffix, tmp_path):
    path = written(tiny(), tmp_path, suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="is not a readable"):
        load_autoencoder(path)


def test_an_unknown_architecture_is_refused_with_what_was_found_and_what_is_known(tmp_path):
    save_file({f"layer{i}.weight": torch.zeros(1) for i in range(6)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"layer0\.weight, .*\.\.\.\.\n.*diffusers .*LDM .*module:attribute"):
        load_autoencoder(tmp_path / "x.safetensors")


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_may_have_other_channels(channels, tmp_path):
    theirs = tiny(in_channels=channels, out_channels=channels).eval()
    opened = load_autoencoder(f"{written(theirs, tmp_path, '.safetensors')},norm_groups=32")
    images = torch.randn(2, channels, 16, 24)
    with torch.no_grad():
        mean = theirs.encode(images).latent_dist.mean
        assert_close(opened.encode(images).mean, mean, rtol=1e-5, atol=1e-5)
        assert_close(opened.decode(mean), theirs.decode(mean).sample, rtol=1e-5, atol=1e-5)
    assert opened.image_channels == channels


@pytest.mark.parametrize("channels", [(1, 3), (5, 5)])
def test_other_numbers_of_channels_are_refused(channels, tmp_path):
    path = written(tiny(in_channels=channels[0], out_channels=channels[1]), tmp_path, ".safetensors")
    with pytest.raises(CheckpointError, match=f"encodes images of {channels[0]} and decodes images of {channels[1]} channels"):
        load_autoencoder(path)
