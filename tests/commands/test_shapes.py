"""A rectangle and a gray set, each from pictures to samples, by real commands."""

import json
import os

import numpy as np
import pytest
import torch
import warm_process
from diffusers import AutoencoderKL
from PIL import Image
from torch.testing import assert_close

from smtool.tokenizers import load_autoencoder

SOURCE = "builtin:photos?train=24&val=16"
AUTOENCODER = """
steps = 2
save_every = 2
evaluate_every = 2
[data]
train = "data"
image_size = {size}
batch = 4
[model]
image_channels = {channels}
downsample = 4
latent_channels = 4
channels = [8, 8, 8]
norm_groups = 4
blocks_per_level = 1
[optimizer]
[discriminator]
num_layers = 1
channels = 4
start = 0
updates = "simultaneous"
[regularizers.dsm]
[regularizers.esm]
[regularizers.eq_vae]
prior = 0.0
[validation]
num_images = 4
grid = 2
"""
TRANSFORMER = """
steps = 2
save_every = 2
evaluate_every = 2
[data]
batch = 4
[latents]
autoencoder = "ae"
[model]
kind = "{kind}"
size = "custom"
depth = 2
width = 16
heads = 2
[optimizer]
[sampler]
steps = 2
[validation]
num_images = 4
grid = 2
"""


@pytest.fixture
def smtool(tmp_path):
    def run(*arguments):
        done = warm_process.run(*arguments, cwd=tmp_path, env={**os.environ, "COLUMNS": "300"})
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "mode", "kind", "words"),
    [("32x64", "RGB", "sit", "32 high, 64 wide"), ("32", "L", "uvit", "32 x 32 with 1 channel (L)")],
)
def test_pictures_of_any_shape_reach_every_command(size, mode, kind, words, smtool, tmp_path):
    channels = {"RGB": 3, "L": 1}[mode]
    height, width = (int(side) for side in (size.split("x") * 2)[:2])
    stored = [height, width] if height != width else height
    (tmp_path / "ae.toml").write_text(AUTOENCODER.format(size=stored, channels=channels))
    (tmp_path / "dit.toml").write_text(TRANSFORMER.format(kind=kind))

    def works(*arguments):
        code, said = smtool(*arguments)
        assert code == 0, said
        return said

    works("prepare", SOURCE, "--size", size, "--mode", mode, "--out", "data", "--workers", 1)
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["image_size"] == stored
    assert words in works("inspect", "data")
    assert f"({channels}, {height}, {width})" in works("train-ae", "ae.toml", "--out", "ae")
    grid = Image.open(next((tmp_path / "ae" / "samples").glob("*reconstructions.png")))
    assert grid.size == (2 * width + 1, 3 * height + 2)
    works("spectrum", "ae", "--data", "data", "--num-images", 8, "--plot", "--out", "spectrum")
    report = json.loads((tmp_path / "spectrum" / "spectrum.json").read_text())
    assert report["passport"]["data"]["image_size"] == stored
    assert report["autoencoders"][0]["latent_size"] == [height // 4, width // 4]
    shown = np.asarray(Image.open(tmp_path / "spectrum" / "ae.reconstructions.png")).astype(int)
    assert (np.ptp(shown, axis=-1).max() == 0) == (mode == "L")      # gray pictures are drawn gray
    works("train-dit", "dit.toml", "--out", "dit")
    works("sample", "dit", "--num-images", 4, "--out", "samples")
    for path in sorted((tmp_path / "samples").glob("0*.png")):
        assert (Image.open(path).mode, Image.open(path).size) == (mode, (width, height))
    works("export", "ae", "--out", "vae")
    ours, theirs = load_autoencoder(tmp_path / "ae"), AutoencoderKL.from_pretrained(tmp_path / "vae").eval()
    images = 2 * torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0)) - 1
    with torch.no_grad():
        mean = theirs.encode(images).latent_dist.mean
        assert_close(ours.encode(images).mean, mean, rtol=1e-4, atol=1e-5)
        assert_close(ours.decode(mean), theirs.decode(mean).sample, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_autoencoder_and_images_of_other_channels_are_an_error_with_both_numbers_and_the_fix(smtool, tmp_path):
    code, said = smtool("prepare", SOURCE, "--size", 32, "--mode", "L", "--out", "data", "--workers", 1)
    assert code == 0, said
    (tmp_path / "ae.toml").write_text(AUTOENCODER.format(size=32, channels=3))
    code, said = smtool("train-ae", "ae.toml", "--out", "ae")
    assert code == 3, said
    assert "data holds images of 1 channel (L), but 3 channels (RGB) are asked for." in said
    assert "model.image_channels = 1" in said and "--size 32 --mode RGB" in said
    code, said = smtool("prepare", SOURCE, "--size", "32x", "--out", "other")
    assert code == 2, said
    assert "--size must be one number or HEIGHTxWIDTH, such as 256 or 512x768, but is '32x'" in said
