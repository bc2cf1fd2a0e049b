"""Methods with own weights, draws or adaptive weights in whole runs: resume, two ranks, and together with DSM and ESM."""

import io

import pytest
import torch
import warm_process
from safetensors.torch import load_file

from smtool.commands.train import training
from smtool.recipe import TrainAE, load
from smtool.report.console import Console

RECIPE = """
steps = 4
log_every = 1
evaluate_every = 4
save_every = 2
[data]
train = "data/classes"
validation = "data/classes"
image_size = 32
batch = 4
[model]
downsample = 4
latent_channels = 4
channels = [4, 4, 8]
norm_groups = 4
blocks_per_level = 1
[optimizer]
lr = 1e-3
warmup = 0
[ema]
decay = 0.5
[regularizers.esm]
[regularizers.dsm]
[validation]
num_images = 8
grid = 4
[tracking]
tensorboard = false
"""
METHODS = {
    "va_vae": ["regularizers.va_vae.teacher=squeezenet"],
    "local_correlation": ["regularizers.local_correlation.weight=1"],
    "nextstep": ["regularizers.latent_noise={kind='nextstep',level=0.5}", "model.latent_norm=channels"],
    "rae": ["regularizers.latent_noise={kind='rae',level=0.8}"],
    "l-detok": ["regularizers.latent_noise={kind='l-detok',level=3}"],
    "uae": ["regularizers.uae.teacher=squeezenet", "regularizers.dsm="],
    "epsilon-vae": ["model.kind=epsilon-vae", "model.denoiser_blocks=1", "model.sampling_steps=2"],
    "rae-model": [
        "model={kind='rae',encoder='squeezenet',downsample=4,size='custom',depth=1,width=8,heads=2,hidden=8}",
        "regularizers.latent_noise={kind='rae',level=0.8}", "regularizers.esm=",
    ],
    "dino": [
        "discriminator={kind='dino',trunk='vit_tiny_patch16_224',channels=192,start=1,updates='simultaneous'}",
        "regularizers.esm=", "data.batch=2",      # at 224 px
    ],
    "dc-ae": [
        "model={kind='dc-ae',downsample=4,latent_channels=4,channels=[8,8,16],encoder_blocks=[0,1,1],decoder_blocks=[0,1,1],"
        "attention=[2],head_channels=8}",
    ],
    "channel_prefix": ["regularizers.channel_prefix={lengths=[1,2,4],per_step=2,always='longest'}"],
    "wavelet": ["wavelet.levels=2"],
    "resized": ["data.sizes=[[0,16],[1,24],[3,32]]", "regularizers.dsm.block=fit"],
    "cut": ["data.sizes=[[0,16],[1,24],[3,32]]", "data.shrink=crop", "regularizers.dsm.block=fit"],
    "latent_masking": ["regularizers.latent_masking.probabilities=[0.25,0.25,0.25,0.25]"],
}
WORKER = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from smtool.commands.train.run_autoencoder import build_task
from smtool.data.batches import ImageBatch
from smtool.randomness import streams
from smtool.recipe import TrainAE, load
from smtool.training.distributed import average_gradients, joined
out, recipe, weights, *methods = sys.argv[1:]
images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
found = {}
with joined("cpu") as ranks:
    low, high = ranks.local_slice(4)
    for method in methods:
        name, *changes = method.split(" ")
        task = build_task(load(recipe, TrainAE, changes).tables, "cpu", Path(weights))
        for step in range(2 if name == "dino" else 6):      # dino takes half of the time
            draws = streams(0, step, "autoencoder", batch=4).at(low, high)
            task.loss("autoencoder", ImageBatch(images[low:high], None, tuple("abcd"[low:high])), draws, step).total.backward()
        player = task.players["autoencoder"]
        average_gradients(player.parameters())
        found |= {f"{name}/{key}": p.grad.contiguous() for key, p in player.named_parameters() if p.grad is not None}
    if ranks.first:
        save_file(found, out)
"""


@pytest.fixture
def recipe(studio, tmp_path) -> str:
    (tmp_path / "family.toml").write_text(RECIPE)
    return str(tmp_path / "family.toml")


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(recipe, weights, tmp_path, name, state_of):
    loaded = load(recipe, TrainAE, METHODS[name])

    def run(out: str, **options) -> None:
        training.train(loaded, console=Console(file=io.StringIO()), out=tmp_path / out, weights_dir=weights, **options)

    run("whole")
    run("paused", pause_at=2)
    run("paused")
    whole, resumed = state_of(tmp_path / "whole"), state_of(tmp_path / "paused")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert any(key.startswith("optimizer/autoencoder/methods.") for key in whole) == (name in WITH_WEIGHTS)
    assert not any("methods" in key for key in whole if key.startswith("ckpt/"))


WITH_WEIGHTS = {"va_vae", "uae", "latent_masking"}
"""Methods whose checkpoints hold weights of their own."""


@pytest.mark.slow
def test_two_ranks_have_the_gradients_of_one(recipe, weights, tmp_path):
    """Sums over 6 steps, so that all draws occur; over 2 for dino. Differences are those of float32 sums of other order."""
    (tmp_path / "worker.py").write_text(WORKER)
    arguments = [recipe, weights, *(" ".join([name, *changes]) for name, changes in METHODS.items())]
    for ranks, out in enumerate(("one", "two"), 1):
        done = warm_process.run(tmp_path / "worker.py", tmp_path / out, *arguments, ranks=ranks, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in METHODS:
        assert any(key.startswith(f"{name}/") for key in one)
        assert any(key.startswith(f"{name}/methods.") for key in one) == (name in WITH_WEIGHTS)
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=2e-3, atol=2e-5, msg=key)
