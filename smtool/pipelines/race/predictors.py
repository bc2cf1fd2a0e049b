"""What can be known of an autoencoder before any transformer is trained on its latents."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smtool import __version__
from smtool.datasets import ImageShards, open_images
from smtool.datasets.types import to_uint8
from smtool.diffusability.report import Autoencoder as Measured
from smtool.diffusability.sections.low_pass import LowPass
from smtool.diffusability.sections.parts import Estimate, Reason, headline
from smtool.diffusability.sections.physical import Decibel, Delta, PhysicalReading
from smtool.diffusability.sections.reference import Divergence
from smtool.diffusability.spectrum import spectrum
from smtool.features.extractor import Extractor, load_extractor
from smtool.interop import autoencoder_digest, load_autoencoder
from smtool.metrics.bootstrap import bootstrap_error
from smtool.metrics.frechet import Gaussian
from smtool.metrics.predictors import NEIGHBOURS, equivariance_error, interpolated, scale_error, velocity_ambiguity
from smtool.networks.autoencoder import Autoencoder
from smtool.networks.posterior import LatentStats
from smtool.pipelines.race.plan import AutoencoderRun, Images
from smtool.pipelines.train.validate import open_validation
from smtool.randomness import generator
from smtool.recipe import Data
from smtool.recipe.race import Judge
from smtool.report.console import Console
from smtool.spectrum import spectral_flatness
from smtool.spectrum.jackknife import student_t_quantile
from smtool.storage import write_json

MOST_LATENTS = 10_000
MOST_QUERIES = 1000
EQUIVARIANCE_IMAGES = 64
SPECTRUM_IMAGES = 240
LOW_PASS_ROWS = 10
SCALES = (0.5, 0.25)
DELTA = 1.0
"""The target that all racers are compared with, whatever their own recipe aims at."""
_BATCH, _REPLICATES = 64, 20


@torch.no_grad()
def predict(
    run: AutoencoderRun, images: Images, judge: Judge, *, folder: Path, device: str = "cpu", weights_dir: Path | None = None
) -> dict[str, Any]:
    """All predictors of one autoencoder, written to folder/predictors/<key>.json; what stands there for these weights is kept."""
    path = folder / "predictors" / f"{run.key}.json"
    autoencoder = load_autoencoder(run.path, device=device).eval().requires_grad_(False)
    facts = {
        "smtool": __version__,
        "autoencoder": autoencoder_digest(autoencoder),
        "features": list(judge.features),
        "images": [images.train, images.validation, images.image_size],
    }
    if path.is_file() and (known := json.loads(path.read_text(encoding="utf-8")))["facts"] == facts:
        return dict(known)
    train = open_images(images.train, "train", image_size=images.image_size)
    validation = open_validation(Data(train=images.train, validation=images.validation, image_size=images.image_size, batch=1))
    known_latents, stats = _normalized(autoencoder, train, device)
    part = _spectrum(run, images, device)
    values: dict[str, Any] = {
        **_spectral(part),
        **_errors(autoencoder, validation, device),
        **_ambiguities(known_latents),
    }
    queries = validation.read(range(min(MOST_QUERIES, len(validation)))).images
    between = _interpolations(autoencoder, queries, known_latents, stats, device)
    for name in judge.features:
        extractor = load_extractor(name, weights_dir=weights_dir).to(device)
        values[f"i{extractor.score}"] = _distance(extractor, to_uint8(queries), between)
    found = {
        "facts": facts,
        "autoencoder": run.key,
        "num_latents": len(known_latents),
        "num_queries": len(queries),
        "values": values,
        "spectrum": _residual(headline(part.physical)),
    }
    write_json(path, found)
    return found


def _normalized(autoencoder: Autoencoder, images: ImageShards, device: str) -> tuple[Tensor, LatentStats]:
    """Latents (N, C, h, w) of training images, sampled from the posterior, each channel at mean 0 and std 1."""
    noise, parts = generator("race", "latents"), []
    numbers = range(min(MOST_LATENTS, len(images)))
    for start in range(0, len(numbers), _BATCH):
        posterior = autoencoder.encode(images.read(numbers[start : start + _BATCH]).images.to(device))
        parts.append(posterior.sample(torch.randn(posterior.mean.shape, generator=noise).to(posterior.mean)).float())
    latents = torch.cat(parts)
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3)).clamp(min=1e-12)
    stats = LatentStats("channel", mean.cpu(), std.cpu(), count=len(latents), data=images.digest)
    return stats.normalize(latents), stats


def _interpolations(autoencoder: Autoencoder, images: Tensor, others: Tensor, stats: LatentStats, device: str) -> Tensor:
    """uint8 decodings of latents halfway between these images' and a near neighbour's."""
    noise, found = generator("race", "queries"), []
    draws = generator("race", "neighbours")
    for part in images.split(_BATCH):
        posterior = autoencoder.encode(part.to(device))
        latents = stats.normalize(posterior.sample(torch.randn(posterior.mean.shape, generator=noise).to(posterior.mean)))
        between = interpolated(latents, others, draws=draws, count=min(NEIGHBOURS, len(others)))
        found.append(to_uint8(autoencoder.decode(stats.denormalize(between))).cpu())
    return torch.cat(found)


def _distance(extractor: Extractor, images: Tensor, others: Tensor) -> dict[str, float]:
    """Frechet distance with the half width of its interval over redraws of the images, pairs kept together."""
    x, y = (
        torch.cat([extractor(part.to(extractor.device)).cpu() for part in pixels.split(_BATCH)]) for pixels in (images, others)
    )

    def distance(chosen: Tensor) -> float:
        return Gaussian.of(x[chosen]).distance(Gaussian.of(y[chosen]))

    indices = torch.arange(len(x))
    error = bootstrap_error(distance, indices, replicates=_REPLICATES, draws=generator("race", "ifd", extractor.score))
    return {"value": distance(indices), "half_width": student_t_quantile(0.975, _REPLICATES - 1) * error}


def _errors(autoencoder: Autoencoder, images: ImageShards, device: str) -> dict[str, Any]:
    """Equivariance errors where latents can be shrunk to quarters."""
    pixels = images.read(range(min(EQUIVARIANCE_IMAGES, len(images)))).images.to(device)
    latents = autoencoder.encode(pixels).mode()
    decoded = autoencoder.decode(latents)
    try:
        return {
            "eq_error": {"value": equivariance_error(autoencoder.decode, latents, decoded)},
            "scale_error": {"value": scale_error(autoencoder.decode, latents, decoded, scales=SCALES)},
        }
    except ValueError as error:
        return {name: {"reason": str(error)} for name in ("eq_error", "scale_error")}


def _ambiguities(latents: Tensor) -> dict[str, Any]:
    """VIV at all latents, and how it grows with their number."""
    counts = [len(latents) // part for part in (4, 2, 1)]
    by_number = {count: velocity_ambiguity(latents[:count], draws=generator("race", "viv")) for count in counts}
    last = by_number[len(latents)]
    return {"viv": {
        "value": last.value,
        "half_width": 1.96 * last.error,
        "by_number": {str(number): found.value for number, found in by_number.items()},
    }}


def _spectrum(run: AutoencoderRun, images: Images, device: str) -> Measured:
    """What `smtool spectrum` says of the autoencoder on validation images."""
    source = images.validation or images.train
    report = spectrum(
        [str(run.path)], data=source, num_images=SPECTRUM_IMAGES, delta=DELTA, device=device, console=Console(quiet=True)
    )
    return report.autoencoders[0]


def _residual(physical: PhysicalReading) -> dict[str, Any]:
    """The latents' distance from the target, ring by ring, for the page."""
    return {"cycles_per_side": physical.cycles_per_side, "residual_db": physical.target.residual_db}


def _spectral(part: Measured) -> dict[str, Any]:
    """One number each; {"reason"} where a section was not measured."""
    physical, reference = headline(part.physical), headline(part.reference)
    kappa = part.transfer if isinstance(part.transfer, Reason) else Estimate(value=part.transfer.kappa, half_width=None)
    gap = part.low_pass.gap_at(LOW_PASS_ROWS) if isinstance(part.low_pass, LowPass) else part.low_pass
    return {
        "esm_divergence": _number(reference.divergence.raw),
        "esm_divergence_matched": _number(reference.divergence.match),
        "divergence_db": _number(physical.target.divergence_db),
        "delta": _number(physical.delta),
        "flatness": _flatness(physical),
        "kappa": _number(kappa),
        "low_pass_gap": gap.model_dump(),
        "rmsc": _number(part.direction.rmsc),
        "lds": _number(part.direction.lds),
        "cds": _number(part.direction.cds),
    }


def _number(part: Estimate | Divergence | Decibel | Delta | Reason) -> dict[str, Any]:
    """The value with its half width, where it has one; where it was not measured, the reason."""
    if isinstance(part, Reason):
        return {"reason": part.reason}
    if part.value is None:
        return {"reason": "not measured"}
    half_width = None if isinstance(part, Decibel) else part.half_width
    return {"value": part.value} if half_width is None else {"value": part.value, "half_width": half_width}


def _flatness(physical: PhysicalReading) -> dict[str, Any]:
    """Geometric over arithmetic mean of the ring powers, a ring counting as many times as it has cells (Lemma A.2)."""
    power = torch.tensor(physical.power, dtype=torch.float64).repeat_interleave(torch.tensor(physical.cells))
    return {"value": float(spectral_flatness(power))}
