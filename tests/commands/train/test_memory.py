"""`memory = "checkpoint"` in recipes, and what a run that does not fit into memory says."""

import pytest
import torch
from safetensors.torch import load_file

from smtool.commands.train.run_autoencoder import autoencoder_run
from smtool.commands.train.training import train
from smtool.errors import OutOfMemory
from smtool.recipe import TrainAE, load
from smtool.report.console import Console
from smtool.tasks.autoencoder import AutoencoderTask

RECIPE = """
steps = 4
log_every = 1
evaluate_every = 100
save_every = 2
[data]
train = "builtin:photos?train=24&val=8"
image_size = 32
batch = 4
[model]
downsample = 4
latent_channels = 2
channels = [4, 4, 8]
norm_groups = 4
blocks_per_level = 1
[optimizer]
lr = 1e-3
[ema]
decay = 0.9
[discriminator]
num_layers = 2
channels = 4
start = 0
[regularizers.dsm]
[tracking]
tensorboard = false
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(RECIPE)
    return lambda *changes: load("small.toml", TrainAE, ["data.workers=1", *changes])


def trained(recipe, out, **options):
    folder = train(recipe, autoencoder_run, out=out, console=Console(quiet=True), **options)
    return load_file(folder / "ckpt.safetensors")


def test_training_with_recomputed_activations_gives_the_same_bits(recipe, tmp_path):
    """With a discriminator, whose adaptive weight takes a gradient of its own, with DSM and EMA; and switched within the run."""
    plain = trained(recipe(), tmp_path / "plain")
    checkpoint = trained(recipe("memory=checkpoint"), tmp_path / "checkpoint")
    trained(recipe(), tmp_path / "switched", pause_at=2)
    switched = trained(recipe("memory=checkpoint"), tmp_path / "switched")
    for name, tensor in plain.items():
        assert torch.equal(tensor, checkpoint[name]), name
        assert torch.equal(tensor, switched[name]), name


@pytest.mark.parametrize(("memory", "said"), [("plain", "--set memory=checkpoint"), ("checkpoint", "Activations need about")])
def test_a_run_without_memory_names_what_helps_with_sizes(memory, said, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(AutoencoderTask, "loss", lambda *_: torch.empty(2**48))
    with pytest.raises(OutOfMemory) as error:
        trained(recipe(f"memory={memory}"), tmp_path / "run")
    assert error.value.exit_code == 5
    assert said in error.value.hint
    assert "MiB" in error.value.hint
    assert "lower data.batch" in error.value.hint
