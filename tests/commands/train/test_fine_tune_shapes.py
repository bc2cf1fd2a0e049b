"""Fine-tunes of gray and rectangular images, and on two ranks: the same weights as on one rank, and as of an unbroken run."""

import io

import pytest
import torch
import warm_process
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch.testing import assert_close

from smtool.commands.export import export
from smtool.commands.train import training
from smtool.recipe import TrainAE, load
from smtool.report.console import Console
from smtool.tokenizers import open_tokenizer

RECIPE = """
steps = 4
log_every = 2
evaluate_every = 4
save_every = 2
ema = { decay = 0.5 }
optimizer = { lr = 1e-3, warmup = 0, eps = 1e-2 }
validation = { num_images = 8, grid = 4 }
tracking = { tensorboard = false }
[data]
train = "builtin:photos?train=24&val=8"
batch = 4
image_size = [32, 48]
"""
STAY = ["regularizers.stay={weight=10}", "lr_multipliers.encoder=0.5"]
CHANGES = {
    "decoder": ["train=decoder", "regularizers.dsm={block='fit'}", "lr_multipliers.decoder=2"],
    "stay": [*STAY, "train=['encoder', 'decoder.conv_out.*']"],
}


@pytest.fixture
def gray(tmp_path, monkeypatch):
    """A folder of diffusers with an autoencoder of gray images, and the recipe, in the current folder."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoencoderKL(
            in_channels=1, out_channels=1, block_out_channels=[8, 8], down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=2, layers_per_block=1, norm_num_groups=4,
        )
    made.save_pretrained(tmp_path / "gray")
    (tmp_path / "heal.toml").write_text(RECIPE + '[model]\ninit = "gray"\n')
    return made


def run(name: str, *changes: str, ranks: int = 1, **options) -> None:
    if ranks == 1:
        loaded = load("heal.toml", TrainAE, changes)
        training.train(loaded, console=Console(file=io.StringIO()), out=name, **options)
        return
    options = [part for change in changes for part in ("--set", change)]
    done = warm_process.run("train-ae", "heal.toml", "--out", name, *options, ranks=ranks)
    assert done.returncode == 0, done.stderr[-2000:]


def assert_equal(one, two) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_gray_rectangles_train_resume_and_come_out(gray, tmp_path, state_of):
    run(tmp_path / "whole", *STAY)
    run(tmp_path / "paused", *STAY, pause_at=2)
    run(tmp_path / "paused", *STAY)
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "paused"))
    ours = open_tokenizer(tmp_path / "whole")
    images = torch.rand(2, 1, 32, 48) * 2 - 1
    for to in ("original", "diffusers"):
        export(str(tmp_path / "whole"), to=to, out=tmp_path / to, console=Console(file=io.StringIO()))
        theirs = AutoencoderKL.from_pretrained(tmp_path / to).eval()
        with torch.no_grad():
            mean = theirs.encode(images).latent_dist.mean
            assert_close(ours.encode(images).mean, mean, rtol=1e-4, atol=1e-5)
            assert_close(ours.decode(mean), theirs.decode(mean).sample, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(gray.eval().encode(images).latent_dist.mean, mean, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHANGES)
def test_two_ranks_fine_tune_as_one_does(kind, gray, tmp_path, state_of):
    changes = CHANGES[kind]
    run(tmp_path / "one", *changes)
    run(tmp_path / "two", *changes, ranks=2)
    one, two = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in (name for name in one if not name.startswith("optimizer/")):
        assert_close(two[name], one[name], rtol=1e-3, atol=2e-5, msg=name)
    start = load_file("gray/diffusion_pytorch_model.safetensors")
    moved = {name for name in start if not torch.equal(start[name], two[f"ckpt/{name}"])}
    trained = ("decoder.", "post_quant_conv.") if kind == "decoder" else ("encoder.", "quant", "decoder.conv_out")
    assert len(moved) > 4 and all(name.startswith(trained) for name in moved)
    if kind == "stay":
        run(tmp_path / "parts", *changes, "steps=2", ranks=2)
        run(tmp_path / "parts", *changes, ranks=2)
        assert_equal(two, state_of(tmp_path / "parts"))
