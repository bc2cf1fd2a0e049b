"""Weights of channels in runs of train-dit: measured, given, stored, resumed, and equal on all ranks."""

from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from smtool import load_autoencoder
from smtool.commands.inspect.diffusion import checkpoint_rows
from smtool.commands.train.run_diffusion import diffusion_run
from smtool.commands.train.run_folder import RunFolder
from smtool.data import open_images
from smtool.errors import DataError, RecipeError
from smtool.inference.diffusion_model import read_diffusion
from smtool.randomness import generator, streams
from smtool.recipe import TrainDiT, load
from smtool.storage import read_metadata, write_tensors
from smtool.training.distributed import Ranks

ENTROPY = ["loss.weights=entropy", "latents.dtype=fp32"]


def assembled(studio, *changes, ranks=None):
    recipe = load(studio.recipe, TrainDiT, changes)
    return diffusion_run(recipe, RunFolder(Path("runs/none")), ranks or Ranks(0, 1, "cpu"), None)


def _entropy(values: np.ndarray) -> float:
    low, high = np.percentile(values, [1.75, 98.25])
    counts, _ = np.histogram(values[(values > low) & (values < high)], bins=100, range=(-1, 1))
    share = counts / counts.sum()
    return -(share * np.log2(share + 1e-9)).sum()


def test_weights_are_the_entropies_of_the_normalized_training_latents_over_their_mean(studio):
    run = assembled(studio, *ENTROPY)
    task = run.training.task
    posterior = load_autoencoder("runs/tiny").encode(open_images("data/classes", "train", image_size=32).read(range(42)).images)
    latents = posterior.sample(torch.randn(posterior.mean.shape, generator=generator("loss weights")))
    normalized = task.stats.normalize(latents).detach().numpy().astype(np.float64)
    entropies = np.array([_entropy(normalized[:, channel].ravel()) for channel in range(2)])
    assert task.channel_weights.tolist() == pytest.approx(list(entropies / entropies.mean()), rel=1e-3)
    assert task.channel_weights.mean() == pytest.approx(1.0)
    (line,) = [line for line in run.summary if "loss weights" in line]
    assert line.startswith("loss weights of 2 channels, from the entropy of 42 latents: ")
    assert f"{task.channel_weights[0]:.3f} {task.channel_weights[1]:.3f}" in line


def test_the_entropy_of_dct_blocks_is_one_population_for_equal_coefficients_of_luma(studio):
    run = assembled(studio, *ENTROPY, "latents.autoencoder='dct:2x4,eta=cifar10'", "latents.stats=published",
                    "data.train=data/classes", "data.image_size=32", "model.patch=1")
    weights = run.training.task.channel_weights
    assert len(weights) == 24
    luma = weights[:16].view(4, 4)
    assert torch.equal(luma, luma[:1].expand(4, 4))
    assert all(part.mean() == pytest.approx(1.0) for part in (luma, weights[16:20], weights[20:]))
    assert luma[0, 0] > luma[0, 3]
    (line,) = [line for line in run.summary if "loss weights" in line]
    assert line.count("4 x ") == 1 and line.count(";") == 2


def test_uniform_weights_are_none_and_not_stored(studio, finished):
    assert assembled(studio).training.task.channel_weights is None
    assert "loss_weights" not in read_metadata(finished / "ckpt.safetensors")


def test_a_run_stores_shows_and_resumes_its_weights_bit_for_bit(studio, tmp_path, state_of):
    changes = [*ENTROPY, "save_every=2", "process.kind=vp-sde", "process.snr_scale=4", "sampler.kind=dpm-solver-fast"]
    whole = studio.train(tmp_path / "whole", *changes, "steps=4")
    broken = studio.train(tmp_path / "broken", *changes, "steps=2")
    stored = read_metadata(broken / "ckpt.safetensors")["loss_weights"]
    studio.train(broken, *changes, "steps=4")
    expected, found = state_of(whole), state_of(broken)
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    assert read_metadata(broken / "ckpt.safetensors")["loss_weights"] == stored
    shown = " ".join(f"{weight:.3f}" for weight in stored)
    assert shown in (broken / "log.txt").read_text() and shown in (broken / "report.html").read_text()
    assert checkpoint_rows(broken / "ckpt.safetensors")["loss weights"] == f"entropy, {shown}"
    assert read_diffusion(broken / "ckpt.safetensors").tables.process.snr_scale == 4
    with pytest.raises(RecipeError, match=r"loss\.weights"):
        studio.train(broken, *changes, "loss.weights=uniform", "steps=6")


def test_a_resumed_run_does_not_measure_again(studio, tmp_path):
    changes = [*ENTROPY, "save_every=2"]
    folder = studio.train(tmp_path / "run", *changes, "steps=2")
    metadata, tensors = read_metadata(folder / "ckpt.safetensors"), load_file(folder / "ckpt.safetensors")
    metadata["loss_weights"] = [1.25, 0.75]
    write_tensors(folder / "ckpt.safetensors", tensors, metadata)
    studio.train(folder, *changes, "steps=4")
    assert read_metadata(folder / "ckpt.safetensors")["loss_weights"] == [1.25, 0.75]


@pytest.mark.parametrize("online", [False, True])
def test_two_ranks_have_the_weights_and_together_the_loss_of_one(studio, online):
    changes = [*ENTROPY, f"latents.online={str(online).lower()}"]
    runs = [assembled(studio, *changes, ranks=Ranks(rank, world, "cpu")) for rank, world in ((0, 1), (0, 2), (1, 2))]
    weights = [run.training.task.channel_weights for run in runs]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    losses = []
    for run in runs:
        with closing(run.batches(0)) as batches:
            (batch,) = islice(batches, 1)
        task, ranks = run.training.task, run.training.ranks
        start, stop = ranks.local_slice(8)
        draws = streams(run.tables.seed, 0, "transformer", batch=8).at(start, stop)
        losses.append(task.loss("transformer", batch, draws, 0).values["diffusion"])
    torch.testing.assert_close((losses[1] + losses[2]) / 2, losses[0], rtol=1e-5, atol=0)


def test_given_numbers_are_used_as_they_are(studio):
    run = assembled(studio, "loss.weights=[1.5, 0.5]")
    assert run.training.task.channel_weights.tolist() == [1.5, 0.5]
    assert "loss weights of 2 channels, from the recipe: 1.500 0.500" in run.summary


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("loss.weights=[1.0, 2.0, 3.0]", "loss.weights has 3 numbers, but latents of runs/tiny"),
        ("loss.weights=[0, 0]", "loss.weights: must have a number above 0"),
        ("loss.weights=[-1, 1]", "loss.weights"),
        ("loss.weights=other", "must be 'uniform' or 'entropy'"),
    ],
)
def test_impossible_weights_are_an_error_of_one_sentence(studio, change, words):
    with pytest.raises(RecipeError, match=r"loss\.weights") as caught:
        assembled(studio, change)
    assert words in str(caught.value)


def test_latents_far_beyond_the_histogram_are_an_error(studio):
    """Latents in units of a bound that is far too small."""
    with pytest.raises(DataError, match="have no entropy"):
        assembled(studio, *ENTROPY, "latents.autoencoder='dct:2x1,eta=1e-12'", "latents.stats=published",
                  "data.train=data/classes", "data.image_size=32", "model.patch=1")
