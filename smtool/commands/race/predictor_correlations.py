"""Rank correlation of each predictor with the racers' distances, and with the FID of published autoencoders."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch

from smtool.commands.race.result import (
    Correlation,
    MeanDistances,
    Point,
    PredictorCorrelation,
    PredictorCorrelations,
    SeedsAgreement,
)
from smtool.commands.race.trial import Distances, Predictors, TrialScores, predictors_path
from smtool.metrics.published import GENERATION, published_autoencoders
from smtool.metrics.rank_correlation import RankCorrelation, rank_correlation, repeatability
from smtool.randomness import generator
from smtool.spectrum import SPATIAL_TITLES

TITLES: Mapping[str, str] = {
    "rfd": "reconstruction distance",
    "psnr": "PSNR",
    "esm_divergence": "ESM divergence (REFERENCE, delta 1)",
    "esm_divergence_matched": "ESM divergence (power-matched)",
    "divergence_db": "distance from the target (dB, PHYSICAL)",
    "delta": "delta, PHYSICAL",
    "flatness": "spectral flatness",
    "kappa": "absolute kappa",
    "low_pass_gap": "low-pass gap (dB at n = 10)",
    "rmsc": SPATIAL_TITLES["rmsc"],
    "lds": SPATIAL_TITLES["lds"],
    "lds_paper": SPATIAL_TITLES["lds_paper"],
    "cds": SPATIAL_TITLES["cds"],
    "uniformity": "uniformity of token directions",
    "eq_error": "equivariance error (EQ-VAE's)",
    "scale_error": "scale-equivariance error",
    "linear_probe": "linear probe, accuracy",
    "viv": "VIV, our reading",
}
PUBLISHED: Mapping[str, str] = {
    "rfd": "rfid", "psnr": "psnr", "eq_error": "eq_loss", "scale_error": "se_loss", "viv": "viv", "lds": "lds", "cds": "cds",
    "linear_probe": "linear_probe", "ifd": "ifid_bn",
}  # fmt: skip
"""Predictor -> its column in the published table, which does not state the definition of its LDS."""
OF_EQUAL_NUMBERS = ("viv",)
"""Predictors that depend on the number of latents, and are compared only where it is the same for all autoencoders."""


def title(name: str, num_latents: Collection[int] = ()) -> str:
    """Name of a predictor in tables. num_latents: of all autoencoders; it is part of the name where the value depends on it."""
    known = TITLES.get(name, f"distance of interpolations (iFID's, {name})" if name.startswith("ifd_") else name)
    if name in OF_EQUAL_NUMBERS and num_latents:
        return f"{known}, N = {', '.join(f'{number:,}' for number in sorted(set(num_latents)))}"
    return known


def points_of(
    racers: Sequence[str], trials: Sequence[TrialScores], features: Sequence[str], folder: Path
) -> dict[str, Point]:
    """Racer -> predictors (read from the race's folder) and distances of its autoencoder, as means over seeds.

    Of racers that share an autoencoder only the first is included, because all predictors of the others are equal.
    """
    found: dict[str, Point] = {}
    seen: set[str] = set()
    for racer in racers:
        own = [trial for trial in trials if trial.racer == racer]
        keys = {trial.autoencoder for trial in own}
        files = [path for key in sorted(keys) if (path := predictors_path(folder, key)).is_file()]
        if not own or keys & seen or not files:
            continue
        seen |= keys
        known = [Predictors.model_validate_json(path.read_bytes()) for path in files]
        found[racer] = Point(
            digests=tuple(sorted(one.cache_key.autoencoder for one in known)),
            num_latents=known[0].num_latents,
            predictors={"psnr": fmean(trial.psnr.value for trial in own), **_means(known)},
            distances={name: mean_distances([trial.distances[name] for trial in own]) for name in features},
        )
    return found


def mean_distances(distances: Sequence[Distances]) -> MeanDistances:
    """Means over seeds."""
    return MeanDistances(
        generation=fmean(one.generation.value for one in distances),
        reconstruction=fmean(one.reconstruction.value for one in distances),
        gap=fmean(one.gap for one in distances),
    )


def _means(known: Sequence[Predictors]) -> dict[str, float]:
    """Means over seeds. A predictor that was not measured for every seed is left out."""
    found = {}
    for name in known[0].values:
        values = [one.values[name].value if name in one.values else None for one in known]
        measured = [value for value in values if value is not None]
        if len(measured) == len(known):
            found[name] = fmean(measured)
    return found


def predictor_correlations(points: Mapping[str, Point], trials: Sequence[TrialScores]) -> dict[str, PredictorCorrelations]:
    """Extractor -> Spearman's correlation of each predictor with the distances; {} for fewer than three autoencoders.

    Predictors that depend on the number of latents are left out if it differs. There is no correction for multiple predictors.
    """
    if len(points) < 3:
        return {}
    names = {"rfd"}.union(set.intersection(*(set(point.predictors) for point in points.values())))
    if len({point.num_latents for point in points.values()}) > 1:
        names -= set(OF_EQUAL_NUMBERS)
    order = [*(name for name in TITLES if name in names), *sorted(names - set(TITLES))]
    return {
        features: PredictorCorrelations(
            predictors={name: _correlations(list(points.values()), name, features) for name in order},
            seeds_agree=seeds_agree(trials, features, points),
        )
        for features in next(iter(points.values())).distances
    }


def value_of(point: Point, predictor: str, features: str) -> float:
    """Value of a predictor for an autoencoder; the reconstruction distance is that on the same extractor."""
    return point.distances[features].reconstruction if predictor == "rfd" else point.predictors[predictor]


def seeds_agree(trials: Sequence[TrialScores], features: str, names: Iterable[str]) -> SeedsAgreement:
    """Mean rank correlation between one seed and the mean of the others, over the named racers.

    It is an upper limit for predictors, up to noise. None for a single seed, for fewer than three racers, or if a racer failed
    in one of the seeds.
    """
    scores = [[trial.distances[features] for trial in trials if trial.racer == name] for name in names]
    if len(scores) < 3 or len(scores[0]) < 2 or len({len(row) for row in scores}) > 1:
        return SeedsAgreement(generation=None, gap=None)

    def agreement(score: Callable[[Distances], float]) -> float | None:
        table = torch.tensor([[score(one) for one in row] for row in scores], dtype=torch.float64)
        return _finite(repeatability(table))

    return SeedsAgreement(generation=agreement(lambda found: found.generation.value), gap=agreement(lambda found: found.gap))


def published(predictor: str) -> RankCorrelation | None:
    """Rank correlation of a predictor with SiT-XL's unguided FID, over published autoencoders; None if unpublished."""
    column = PUBLISHED.get("ifd" if predictor.startswith("ifd_") else predictor)
    if column is None:
        return None
    rows = [row for row in published_autoencoders().values() if not math.isnan(row[column])]
    x, y = (torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in (column, GENERATION))
    return rank_correlation(x, y, draws=generator("race", "published", column))


def _correlations(points: Sequence[Point], name: str, features: str) -> PredictorCorrelation:
    x = torch.tensor([value_of(point, name, features) for point in points], dtype=torch.float64)
    distances = [point.distances[features] for point in points]

    def correlation(what: str, ys: Sequence[float]) -> Correlation:
        y = torch.tensor(ys, dtype=torch.float64)
        return _described(rank_correlation(x, y, draws=generator("race", "forecast", name, what)))

    known = published(name)
    return PredictorCorrelation(
        title=title(name, [point.num_latents for point in points]),
        generation=correlation("generation", [one.generation for one in distances]),
        gap=correlation("gap", [one.gap for one in distances]),
        published=_described(known) if known is not None else None,
    )


def _described(found: RankCorrelation) -> Correlation:
    return Correlation(
        value=_finite(found.value),
        low=_finite(found.low),
        high=_finite(found.high),
        chance=found.chance,
        points=found.points,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
