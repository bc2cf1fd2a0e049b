"""Scores of one transformer: distance of its samples to images, and of the autoencoder's reconstructions for comparison."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from smtool import __version__
from smtool.commands.race.distances import distances_to
from smtool.commands.race.images import training_images, validation_images
from smtool.commands.race.plan import TrainedTrial
from smtool.commands.race.result import Images
from smtool.commands.race.trial import (
    Estimate,
    Losses,
    Parameters,
    Spectra,
    TrialKey,
    TrialScores,
    read_kept,
    scores_path,
)
from smtool.commands.train.band_floors import band_floors
from smtool.data import ImageShards
from smtool.data.batches import ImageBatch, to_signed, to_uint8
from smtool.diffusion import Sampler
from smtool.errors import DataError
from smtool.evaluation.feature_pass import Wanted, table_of_features
from smtool.evaluation.image_sources import shards_source
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.features.protocol import PROTOCOLS
from smtool.inference.diffusion_model import DiffusionModel, read_diffusion
from smtool.inference.encode import encoded_latents, sampled_in_order
from smtool.inference.generate import class_labels, generate
from smtool.inference.precision import stated_precision
from smtool.inference.reconstruct import uint8_reconstructions
from smtool.metrics.reconstruction import psnr
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator
from smtool.recipe.race import Judge
from smtool.report.grids import image_grid, png_bytes
from smtool.report.trackers import read_metrics
from smtool.spectrum import PHYSICAL, spectrum_of
from smtool.spectrum.jackknife import student_t_quantile
from smtool.storage import read_metadata, write_bytes
from smtool.tasks.diffusion import NUM_BANDS

GRID = 64
LATE = 0.1      # losses are averaged over this last fraction of the steps
VALIDATION_IMAGES = 1000
LARGEST_PSNR = 100.0      # dB, of an exact reconstruction (as by `pixels`); all other 8-bit images are below
BANDS = tuple(f"band{number}" for number in range(1, NUM_BANDS + 1))
_BATCH = 64
_FLOOR_IMAGES = 1024


@torch.no_grad()
def score_trial(
    trial: TrainedTrial, images: Images, judge: Judge, *, folder: Path, device: str = "cpu", weights_dir: Path | None = None
) -> TrialScores:
    """Score a transformer and write folder/cells/KEY.json and .png; reuse these files if the weights are the same.

    N samples and the reconstructions of the first N training images are compared with all other training images. So both
    distances have the same reference and the same N, and no image is on both sides.
    """
    path = scores_path(folder, trial.key)
    checkpoint = trial.path / "ckpt.safetensors"
    key = _cache_key(trial, checkpoint, images, judge, device)
    if (known := read_kept(path, TrialScores)) is not None and known.cache_key == key:
        return known
    model = read_diffusion(checkpoint, device)
    shards = training_images(images)
    count = min(judge.num_images, len(shards) // 2)
    samples = _samples(model, count, device)
    shown = shards.read(range(count))
    reconstructions = uint8_reconstructions(model.autoencoder, shown.split(_BATCH))
    distances = {}
    for name in judge.features:
        extractor = load_extractor(name, weights_dir=weights_dir).to(device)
        reference = _reference(shards, extractor, folder)[count:]
        distances[name] = distances_to(
            reference, extractor, judge.metric, samples=samples, reconstructions=reconstructions
        )
    write_bytes(path.with_suffix(".png"), png_bytes(image_grid(samples[:GRID])))
    validation = validation_images(images)
    found = TrialScores(
        cache_key=key,
        racer=trial.racer,
        seed=trial.seed,
        autoencoder=trial.autoencoder,
        step=key.step,
        num_images=count,
        num_reference=len(shards) - count,
        distances=distances,
        psnr=_psnr(model.autoencoder, validation),
        losses=_losses(trial.path, key.step, model, shown.slice(0, _FLOOR_IMAGES)),
        spectra=_spectra(to_uint8(shown.images), reconstructions, samples),
        parameters=Parameters(
            autoencoder=sum(p.numel() for p in model.autoencoder.parameters()),
            transformer=sum(p.numel() for p in model.network.parameters()),
        ),
    )
    found.write(path)
    return found


def _cache_key(trial: TrainedTrial, checkpoint: Path, images: Images, judge: Judge, device: str) -> TrialKey:
    metadata = read_metadata(checkpoint)
    recipe = metadata["recipe"]
    precision = stated_precision(Sampler.model_validate(recipe["sampler"]), recipe["precision"], device)
    return TrialKey(
        smtool=__version__,
        transformer=metadata["digest"],
        autoencoder=metadata["autoencoder"]["digest"],
        step=metadata["step"],
        sampler={**recipe["sampler"], "precision": precision},
        images=metadata["data_digest"],
        validation=images.validation,
        metric=judge.metric,
        features=judge.features,
        num_images=judge.num_images,
        seed=trial.seed,
    )


def _samples(model: DiffusionModel, count: int, device: str) -> Tensor:
    """Samples, uint8 (N, C, H, W). Sample i starts from the same noise for every racer and seed of the race."""
    labels = class_labels(count, model.num_classes, "balanced", seed=0)
    drawn = generate(model, range(count), seed=0, sampler=model.tables.sampler, labels=labels, batch=_BATCH, device=device)
    return torch.cat([part for _, part in drawn])


def _reference(shards: ImageShards, extractor: Extractor, folder: Path) -> Tensor:
    """Features of all training images, cached in the race's folder, because every trial needs them."""
    source, kept = shards_source(shards), folder / "features"
    table = table_of_features(source, [Wanted(extractor)], PROTOCOLS["clean"], count=len(shards), batch=_BATCH, folder=kept)
    return table[extractor.score, "pooled"]


def _psnr(autoencoder: Tokenizer, images: ImageShards) -> Estimate:
    """Mean PSNR over validation images, with its 95 % interval over images. If these are crops of fewer photographs, the interval
    over photographs would be wider.
    """
    batch = images.read(range(min(VALIDATION_IMAGES, len(images))))
    decoded = uint8_reconstructions(autoencoder, batch.split(_BATCH))
    values = psnr(decoded, to_uint8(batch.images)).double().clamp(max=LARGEST_PSNR)
    error = values.std().item() / len(values) ** 0.5
    return Estimate(value=values.mean().item(), half_width=student_t_quantile(0.975, len(values) - 1) * error)


def _losses(run: Path, step: int, model: DiffusionModel, images: ImageBatch) -> Losses:
    """Mean losses over the last logged steps. Floors are of normalized, sampled latents, as in training."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "diffusion" in row and row["step"] <= step]
    late = [row for row in rows if row["step"] > (1 - LATE) * step] or rows[-1:]
    if not late:
        raise DataError(
            f"{run}: no loss was logged until step {step}, where the race ends.",
            hint="Run it longer, or log more often: --set transformer.changes='[\"log_every=5\"]'",
        )
    latents = encoded_latents(model.autoencoder, images.split(_BATCH), sampled_in_order(generator("race", "band floors")))
    floors = band_floors(torch.cat([model.stats.normalize(part).cpu() for part in latents]))
    bands = torch.tensor([_mean(late, band) for band in BANDS], dtype=torch.float64)
    return Losses(
        diffusion=_mean(late, "diffusion"),
        bands=bands.tolist(),
        start=floors.start.tolist(),
        floor=floors.floor.tolist(),
        learnt=floors.learnt(bands).tolist(),
        cells=floors.cells.tolist(),
    )


def _mean(rows: Sequence[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def _spectra(images: Tensor, reconstructions: Tensor, samples: Tensor) -> Spectra:
    of_images, *others = (spectrum_of(to_signed(pictures), PHYSICAL) for pictures in (images, reconstructions, samples))
    return Spectra(
        frequency=(of_images.frequency * of_images.size[0]).tolist(),
        images=of_images.mean().tolist(),
        reconstructions=others[0].mean().tolist(),
        samples=others[1].mean().tolist(),
    )
