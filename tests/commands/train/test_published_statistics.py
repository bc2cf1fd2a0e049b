"""Transformers on latents that are normalized by FLUX.2's batch norm of 2x2 patches (`latents.stats = "published"`)."""

import io

import pytest
import torch
from diffusers import AutoencoderKLFlux2
from torch.nn import functional as F
from torch.testing import assert_close

from smtool.commands.train import training
from smtool.data import open_images
from smtool.errors import RecipeError
from smtool.inference.diffusion_model import read_diffusion
from smtool.recipe import TrainAE, load
from smtool.report.console import Console
from smtool.tokenizers import open_tokenizer


@pytest.fixture
def flux2(studio, tmp_path) -> AutoencoderKLFlux2:
    """A folder `flux2` in tmp_path whose batch norm is that of the latents of data/classes."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        made = AutoencoderKLFlux2(
            block_out_channels=[8, 8], down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
            latent_channels=4, layers_per_block=1, norm_num_groups=4,
        ).eval()
        images = open_images("data/classes", "train", image_size=32).read(range(42)).images
        patches = F.pixel_unshuffle(made.encode(images).latent_dist.sample(), 2)
        made.bn.running_mean.copy_(patches.mean((0, 2, 3)))
        made.bn.running_var.copy_(patches.var((0, 2, 3)))
    made.save_pretrained(tmp_path / "flux2")
    return made


def test_a_transformer_is_trained_on_latents_that_the_batch_norm_normalizes(flux2, studio, tmp_path):
    changes = (f"latents.autoencoder={tmp_path / 'flux2'}", "latents.stats=published", "data.train=data/classes", "steps=1")
    run = studio.train(tmp_path / "run", *changes, "data.image_size=32")
    stats = read_diffusion(run / "ckpt.safetensors").stats
    assert stats.kind == "patch"
    latents = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        assert_close(F.pixel_unshuffle(stats.normalize(latents), 2), flux2.bn(F.pixel_unshuffle(latents, 2)))
    with pytest.raises(RecipeError, match=r"latents: latents of 15x15 cells have no whole 2x2 patches"):
        studio.train(tmp_path / "odd", *changes, "data.train=builtin:photos?train=8&val=2", "data.image_size=30")
    assert not (tmp_path / "odd").exists()


def test_a_fine_tune_whose_latents_have_odd_sides_is_refused_before_it_starts(flux2, tmp_path):
    changes = [f"model.init={tmp_path / 'flux2'}", "data.image_size=30", "data.train=builtin:photos?train=8&val=2"]
    (tmp_path / "heal.toml").write_text("steps = 1\n[data]\nbatch = 2\n[model]\n[optimizer]\n")
    loaded = load(str(tmp_path / "heal.toml"), TrainAE, changes)
    with pytest.raises(RecipeError, match=r"data.image_size: latents of 15x15 cells .* normalized[\s\S]*multiples of 4"):
        training.train(loaded, console=Console(file=io.StringIO()), out=tmp_path / "run")
    assert open_tokenizer(tmp_path / "flux2").stats.kind == "patch"
