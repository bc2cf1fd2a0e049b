"""Commands from images to samples on the fake GPU."""

import json
from pathlib import Path

import pytest

from smtool.commands.train import run_diffusion
from smtool.data.latents import check

pytestmark = [pytest.mark.fake_cuda, pytest.mark.slow]

COMMON = """
steps = 2
[optimizer]
warmup = 0
[ema]
[tracking]
tensorboard = false
"""
AUTOENCODER = f"""precision = "fp16"
{COMMON}
[data]
train = "builtin:photos?train=10&val=4"
image_size = 16
batch = 2
[model]
downsample = 2
latent_channels = 2
channels = [4, 4]
norm_groups = 2
blocks_per_level = 1
mid_attention = false
[regularizers.dsm]
[validation]
num_images = 2
grid = 1
"""
TRANSFORMER = f"""precision = "bf16"
{COMMON}
[latents]
autoencoder = "runs/ae"
[data]
batch = 2
[model]
kind = "sit"
size = "custom"
depth = 1
width = 8
heads = 2
[sampler]
kind = "heun"
steps = 2
[validation]
num_images = 2
grid = 1
"""


@pytest.fixture
def lenient(monkeypatch):
    """Without the check that latents fit their statistics and images: the numbers of the card are made up."""
    monkeypatch.setattr(check, "ROUND_TRIP_DB", -1e9)
    monkeypatch.setattr(check, "LOSS_DB", 1e9)
    monkeypatch.setattr(check, "DISTANCE", 1e9)
    monkeypatch.setattr(check, "_check_normalized", lambda latents, stats, any_std: ((0.0,), (1.0,)))
    monkeypatch.setattr(run_diffusion, "CHECKED_SAMPLES", 4)
    for name in ("figure.Figure.draw", "layout_engine.ConstrainedLayoutEngine.execute"):      # which take longer than the rest
        monkeypatch.setattr(f"matplotlib.{name}", lambda *given: None)


def test_commands_run_from_images_to_samples(card, command, lenient, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ae.toml").write_text(AUTOENCODER)
    Path("dit.toml").write_text(TRANSFORMER)

    def run(*arguments: str) -> str:
        code, out, err = command(*arguments, "--device", "cuda")
        assert code == 0, err
        return out

    run("train-ae", "ae.toml", "--out", "runs/ae")
    run("train-ae", "ae.toml", "--out", "runs/ae", "--set", "steps=3")      # resumes: the state of optimizers comes from files
    assert json.loads(Path("runs/ae/environment.json").read_text())["gpu"] == "fake GPU"
    images = str(next(Path("data").glob("*/dataset.json")).parent)
    run("prepare", images, "--latents", "runs/ae", "--out", "data/latents")
    run("train-dit", "dit.toml", "--out", "runs/dit")
    run("train-dit", "dit.toml", "--out", "runs/online", "--online")
    run("train-dit", "dit.toml", "--dry-run")
    run("sample", "runs/dit", "--num-images", "4", "--batch", "2", "--out", "samples", "--trace")
    assert json.loads(Path("samples/samples.json").read_text())["sampler"]["precision"] == "bf16"      # that of the training
    run("eval", "runs/dit", "--num-images", "10", "--batch", "5", "--features", "random")
    run("eval", "runs/ae", "--num-images", "4", "--psnr", "--features", "random")
    run("spectrum", "runs/ae", "--data", images, "--num-images", "8", "--out", "spectrum")
