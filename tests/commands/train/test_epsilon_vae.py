"""The epsilon-VAE in whole runs: every command that decodes its latents works, and draws the same images each time."""

import json

import numpy as np
import pytest
from PIL import Image

RECIPE = """
steps = 2
log_every = 1
evaluate_every = 2
save_every = 2
[data]
train = "data/classes"
validation = "data/classes"
image_size = 32
batch = 4
[model]
kind = "epsilon-vae"
downsample = 4
channels = [4, 4, 8]
norm_groups = 2
blocks_per_level = 1
denoiser_blocks = 1
sampling_steps = 2
[reconstruction]
loss = "velocity"
[optimizer]
lr = 1e-3
warmup = 0
[ema]
decay = 0.5
[validation]
num_images = 8
grid = 4
[tracking]
tensorboard = false
"""


@pytest.mark.slow
def test_a_transformer_learns_its_latents_and_every_command_decodes_them(studio, tmp_path, command):
    (tmp_path / "epsilon-vae.toml").write_text(RECIPE)

    def run(*arguments: str) -> str:
        code, said, errors = command(*arguments)
        assert code == 0, errors
        return said

    folder = str(tmp_path / "ae")
    run("train-ae", str(tmp_path / "epsilon-vae.toml"), "--out", folder)
    assert "epsilon-VAE f4" in run("inspect", folder)
    done = str(studio.train(tmp_path / "dit", f"latents.autoencoder={folder}", "steps=2"))
    for name in ("one", "two"):
        run("sample", done, "--num-images", "4", "--out", str(tmp_path / name))
    one, two = ([np.asarray(Image.open(path)) for path in sorted((tmp_path / name).glob("*.png"))] for name in ("one", "two"))
    assert len(one) >= 4 and all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert np.stack(one[:4]).std() > 0
    run("eval", folder, "--data", "data/classes", "--psnr", "--json", str(tmp_path / "eval.json"))
    psnr = json.loads((tmp_path / "eval.json").read_text())["scores"]["psnr"]["value"]
    assert 0 < psnr < 60
    measured = ["--json", str(tmp_path / "spectrum.json"), "--out", str(tmp_path / "report")]
    run("spectrum", folder, "--data", "data/classes", *measured)
    assert json.loads((tmp_path / "spectrum.json").read_text())["autoencoders"]
