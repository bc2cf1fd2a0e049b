"""Predictors: measures of an autoencoder that need no transformer on its latents."""

import math
from pathlib import Path

import torch
from torch import Tensor

from smtool import __version__
from smtool.commands.race.class_probe import MOST_LATENTS, Labels, probed
from smtool.commands.race.distances import features_of
from smtool.commands.race.images import training_images, validation_images
from smtool.commands.race.plan import AutoencoderRun
from smtool.commands.race.result import Images
from smtool.commands.race.spectral_predictors import spectral_predictors
from smtool.commands.race.trial import Measured, Predictors, PredictorsKey, predictors_path, read_kept
from smtool.data import ImageShards, validation_batches
from smtool.data.batches import ImageBatch, to_uint8
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.inference.encode import encoded_latents, sampled_in_order
from smtool.inference.reconstruct import reconstructed
from smtool.metrics.bootstrap import bootstrap_error
from smtool.metrics.frechet import Gaussian
from smtool.metrics.predictors import NEIGHBOURS, equivariance_error, interpolated, scale_error
from smtool.metrics.velocity_ambiguity import velocity_ambiguity
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator
from smtool.recipe.race import Judge
from smtool.spectrum import direction_uniformity
from smtool.spectrum.jackknife import student_t_quantile
from smtool.tokenizers import open_tokenizer

MOST_QUERIES = 1000
UNIFORMITY_IMAGES = 1024
EQUIVARIANCE_IMAGES = 64
SCALES = (0.5, 0.25)
MEASURES = 2
"""Number of the set of predictors; raised when one is added or changed, so that files of an earlier one are measured again."""
_BATCH, _REPLICATES = 64, 20


@torch.no_grad()
def measure_predictors(
    run: AutoencoderRun, images: Images, judge: Judge, *, folder: Path, device: str = "cpu", weights_dir: Path | None = None
) -> Predictors:
    """Measure all predictors of an autoencoder and write folder/predictors/KEY.json, or reuse it for the same weights."""
    path = predictors_path(folder, run.key)
    autoencoder = open_tokenizer(run.path, device=device, image_size=images.image_size, image_channels=images.image_channels)
    key = PredictorsKey(
        smtool=__version__,
        autoencoder=autoencoder.digest,
        features=judge.features,
        images=(images.train, images.validation, images.image_size),
        measures=MEASURES,
    )
    if (known := read_kept(path, Predictors)) is not None and known.cache_key == key:
        return known
    train = training_images(images)
    validation = validation_images(images)
    latents, stats, labels = _normalized(autoencoder, train)
    spectral, residual = spectral_predictors(run.path, images, device)
    values = {**spectral, **_errors(autoencoder, validation), "uniformity": _uniformity(latents), "viv": _ambiguity(latents)}
    values["linear_probe"] = probed(autoencoder, validation, latents, labels, stats)
    queries = validation.read(range(min(MOST_QUERIES, len(validation))))
    between = _interpolations(autoencoder, queries, latents, stats)
    for name in judge.features:
        extractor = load_extractor(name, weights_dir=weights_dir).to(device)
        values[f"i{extractor.score}"] = _distance(extractor, to_uint8(queries.images), between)
    found = Predictors(
        cache_key=key,
        autoencoder=run.key,
        num_latents=len(latents),
        num_queries=len(queries),
        values=values,
        spectrum=residual,
    )
    found.write(path)
    return found


def _normalized(autoencoder: Tokenizer, images: ImageShards) -> tuple[Tensor, LatentStats, Tensor | None]:
    """Sampled latents (N, C, h, w) of training images, each channel with mean 0 and std 1; their statistics; labels (N,)."""
    labels = Labels(validation_batches(images, batch=_BATCH, limit=MOST_LATENTS))
    drawn = encoded_latents(autoencoder, labels, sampled_in_order(generator("race", "latents")))
    latents = torch.cat([part.float() for part in drawn])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3)).clamp(min=1e-12)
    stats = LatentStats("channel", mean.cpu(), std.cpu(), count=len(latents), data=images.digest)
    return stats.normalize(latents), stats, labels.all


def _interpolations(autoencoder: Tokenizer, images: ImageBatch, others: Tensor, stats: LatentStats) -> Tensor:
    """Decodings, uint8 (N, C, H, W), of latents halfway between those of an image and of one of its nearest neighbours."""
    draws, found = generator("race", "neighbours"), []
    for part in encoded_latents(autoencoder, images.split(_BATCH), sampled_in_order(generator("race", "queries"))):
        between = interpolated(stats.normalize(part), others, draws=draws, count=min(NEIGHBOURS, len(others)))
        found.append(to_uint8(autoencoder.decode(stats.denormalize(between))).cpu())
    return torch.cat(found)


def _distance(extractor: Extractor, images: Tensor, others: Tensor) -> Measured:
    """Frechet distance with the half-width of its 95 % bootstrap interval over images, keeping pairs together."""
    x, y = features_of(images, extractor), features_of(others, extractor)

    def distance(chosen: Tensor) -> float:
        return Gaussian.of(x[chosen]).distance(Gaussian.of(y[chosen]))

    indices = torch.arange(len(x))
    error = bootstrap_error(distance, indices, replicates=_REPLICATES, draws=generator("race", "ifd", extractor.score))
    return Measured(value=distance(indices), half_width=student_t_quantile(0.975, _REPLICATES - 1) * error)


def _errors(autoencoder: Tokenizer, images: ImageShards) -> dict[str, Measured]:
    """Equivariance errors, or a reason if latents cannot be scaled down to a quarter."""
    (part,) = reconstructed(autoencoder, [images.read(range(min(EQUIVARIANCE_IMAGES, len(images))))])
    try:
        return {
            "eq_error": Measured(value=equivariance_error(autoencoder.decode, part.latents, part.decoded)),
            "scale_error": Measured(value=scale_error(autoencoder.decode, part.latents, part.decoded, scales=SCALES)),
        }
    except ValueError as error:
        return dict.fromkeys(("eq_error", "scale_error"), Measured(reason=str(error)))


def _uniformity(latents: Tensor) -> Measured:
    """Uniformity of token directions of the first images, or a reason if a token has no direction."""
    try:
        found = direction_uniformity(latents[:UNIFORMITY_IMAGES], draws=generator("race", "uniformity"))
    except ValueError as error:
        return Measured(reason=str(error))
    return Measured(value=found.value, half_width=found.half_width if math.isfinite(found.half_width) else None)


def _ambiguity(latents: Tensor) -> Measured:
    """VIV of all latents, and of the first quarter and half of them, because it grows with their number."""
    counts = sorted({max(1, len(latents) // part) for part in (4, 2, 1)})
    by_number = {count: velocity_ambiguity(latents[:count], draws=generator("race", "viv")) for count in counts}
    last = by_number[len(latents)]
    return Measured(
        value=last.value,
        half_width=1.96 * last.error,
        by_number={str(number): found.value for number, found in by_number.items()},
    )
