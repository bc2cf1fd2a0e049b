"""The second half of `smtool quickstart`: a small transformer on the latents of each autoencoder, its samples, their scores."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smtool.commands.evaluate.evaluation import evaluate
from smtool.commands.evaluate.result import SampleEvaluation
from smtool.commands.sample.samples import sample_images
from smtool.commands.train.band_floors import BandFloors, band_floors
from smtool.commands.train.side_by_side import Job, train_side_by_side
from smtool.data import ImageShards
from smtool.data.batches import to_signed, to_uint8
from smtool.evaluation.options import EvalOptions
from smtool.evaluation.quick_distances import quick_distances
from smtool.inference.diffusion_model import DiffusionModel, read_diffusion
from smtool.inference.encode import encoded_latents, sampled_in_order
from smtool.inference.reconstruct import uint8_reconstructions
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator
from smtool.recipe import TrainDiT, load
from smtool.report.console import Console
from smtool.report.grids import image_grid
from smtool.report.trackers import read_metrics
from smtool.spectrum import PHYSICAL, Spectrum, spectrum_of

RECIPE = "quickstart/sit"
FEATURES = "random"
NUM_SAMPLES = 128
GRID_SAMPLES, GRID_COLUMNS = 48, 12
CROPS, RECONSTRUCTIONS, SAMPLES = "training crops", "reconstructions of training crops", "samples"
_FLOOR_IMAGES = 512
_BATCH = 64


@dataclass(frozen=True)
class Generation:
    """What one transformer came to.

    rows: its metrics. samples, reals: grids, uint8 (3, H, W). evaluation: of the samples. distances, spectra:
    other images, as many as samples -> score -> value to the same reference; all images -> spectrum (PHYSICAL).
    """

    run: Path
    model: DiffusionModel
    rows: list[dict[str, Any]]
    floors: BandFloors
    samples: Tensor
    reals: Tensor
    evaluation: SampleEvaluation
    distances: Mapping[str, Mapping[str, float]]
    spectra: Mapping[str, Spectrum]


def train_transformers(autoencoders: Mapping[str, str], out: Path, *, console: Console) -> dict[str, Path]:
    """Train RECIPE on the latents of each autoencoder, side by side. Returns the run folders, by name."""
    jobs = {}
    for name, autoencoder in autoencoders.items():
        change = f"latents.autoencoder={json.dumps(autoencoder)}"
        jobs[name] = Job(load(RECIPE, TrainDiT, [change]), out / f"{name}-sit", (change,))
    train_side_by_side(list(jobs.values()), console=console)
    return {name: job.out for name, job in jobs.items()}


def draw_samples(run: Path, *, console: Console) -> Path:
    """`smtool sample`: the same noise for every run. Returns the folder of the samples."""
    return sample_images(str(run), num_images=NUM_SAMPLES, kind="npz", grid=GRID_SAMPLES, console=console)


@torch.no_grad()
def look_at(run: Path, samples: Path, images: ImageShards, *, console: Console) -> Generation:
    """`smtool eval` of the samples, beside what real crops and their reconstructions score at the same number."""
    evaluation = evaluate(str(samples), EvalOptions(), console=console)
    assert isinstance(evaluation, SampleEvaluation)
    model = read_diffusion(run / "ckpt.safetensors")
    drawn = torch.from_numpy(np.load(samples / "samples.npz")["arr_0"]).permute(0, 3, 1, 2)
    count = min(len(drawn), len(images))
    real = images.read(_spread(len(images), count))
    others = {CROPS: to_uint8(real.images), RECONSTRUCTIONS: uint8_reconstructions(model.autoencoder, real.split(_BATCH))}
    return Generation(
        run,
        model,
        read_metrics(run / "metrics.jsonl"),
        band_floors(_latents(model.autoencoder, model.stats, images)),
        image_grid(drawn[:GRID_SAMPLES], columns=GRID_COLUMNS),
        image_grid(to_uint8(images.read(_spread(len(images), GRID_SAMPLES)).images), columns=GRID_COLUMNS),
        evaluation,
        {what: quick_distances(pixels, images, features=FEATURES, num_images=len(images)) for what, pixels in others.items()},
        {what: spectrum_of(to_signed(pixels), PHYSICAL) for what, pixels in (others | {SAMPLES: drawn}).items()},
    )


def _spread(length: int, count: int) -> list[int]:
    """Indices evenly over a set, so that every photograph has its share."""
    return [index * length // count for index in range(min(count, length))]


def _latents(autoencoder: Tokenizer, stats: LatentStats, images: ImageShards) -> Tensor:
    """Normalized latents as the transformer saw them, sampled from the posterior; without the mirrored images."""
    batches = images.read(_spread(len(images), _FLOOR_IMAGES)).split(_BATCH)
    drawn = encoded_latents(autoencoder, batches, sampled_in_order(generator("band floors")))
    return torch.cat([stats.normalize(part) for part in drawn])
