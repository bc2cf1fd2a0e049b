"""How well each predictor would have ranked the racers, and how well it ranks the published autoencoders."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from smtool.metrics.published import GENERATION, published_autoencoders
from smtool.metrics.rank_correlation import RankCorrelation, rank_correlation, repeatability
from smtool.randomness import generator

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
    "rmsc": "RMSC",
    "lds": "LDS",
    "cds": "CDS",
    "eq_error": "equivariance error (EQ-VAE's)",
    "scale_error": "scale-equivariance error",
    "viv": "VIV, our reading",
}
PUBLISHED: Mapping[str, str] = {
    "rfd": "rfid", "psnr": "psnr", "eq_error": "eq_loss", "scale_error": "se_loss", "viv": "viv", "lds": "lds", "cds": "cds",
    "ifd": "ifid_bn",
}  # fmt: skip
"""Predictor -> its column of the published table, where it has one."""
JUDGED = ("generation", "gap")
Point = dict[str, float]


def title(name: str) -> str:
    """What a predictor is called on tables."""
    return TITLES.get(name, f"distance of interpolations (iFID's, {name})" if name.startswith("ifd_") else name)


def points_of(result: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Autoencoder's name -> predictors and distances by extractor (means over seeds), and the digests of its weights.

    Of racers that share an autoencoder, only the first counts: they differ in what no predictor sees.
    """
    found: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    for racer in result["racers"]:
        cells = [cell for cell in result["cells"] if cell["racer"] == racer]
        keys = {cell["autoencoder"] for cell in cells}
        files = [path for key in sorted(keys) if (path := folder / "predictors" / f"{key}.json").is_file()]
        if not cells or keys & seen or not files:
            continue
        seen |= keys
        known = [json.loads(path.read_text(encoding="utf-8")) for path in files]
        found[racer] = {
            "digests": sorted(one["facts"]["autoencoder"] for one in known),
            "num_latents": known[0]["num_latents"],
            "predictors": {
                "psnr": fmean(cell["psnr"]["value"] for cell in cells),
                **_means([one["values"] for one in known]),
            },
            "distances": {features: _mean_distances(cells, features) for features in result["standings"]},
        }
    return found


def _mean_distances(cells: Sequence[Mapping[str, Any]], features: str) -> Point:
    distances = [cell["distances"][features] for cell in cells]
    return {
        "generation": fmean(one["generation"]["value"] for one in distances),
        "reconstruction": fmean(one["reconstruction"]["value"] for one in distances),
        "gap": fmean(one["gap"] for one in distances),
    }


def _means(values: Sequence[Mapping[str, Any]]) -> Point:
    """Over seeds; a predictor that could not be measured for all of them is left out."""
    names = [name for name in values[0] if all("value" in one.get(name, {}) for one in values)]
    return {name: fmean(one[name]["value"] for one in values) for name in names}


def forecasts(points: Mapping[str, Mapping[str, Any]], cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By extractor: predictors -> Spearman's correlation with the generation distance and with the gap, and that of the published
    table; seeds_agree: how well one seed alone ranks the same autoencoders.

    Nothing for fewer than three autoencoders. chance: how often a random order does as well; no correction for there being
    many predictors.
    """
    if len(points) < 3:
        return {}
    names = {"rfd"}.union(set.intersection(*(set(point["predictors"]) for point in points.values())))
    order = [*(name for name in TITLES if name in names), *sorted(names - set(TITLES))]
    return {
        features: {
            "predictors": {
                name: {
                    "title": title(name),
                    **{what: _described(_correlation(points, name, features, what)) for what in JUDGED},
                    "published": _described(published(name)),
                }
                for name in order
            },
            "seeds_agree": seeds_agree(cells, features, points),
        }
        for features in next(iter(points.values()))["distances"]
    }


def value_of(point: Mapping[str, Any], predictor: str, features: str) -> float:
    """What a predictor says of an autoencoder; the reconstruction distance is that of the extractor that judges."""
    known = {"rfd": point["distances"][features]["reconstruction"], **point["predictors"]}
    return float(known[predictor])


def seeds_agree(cells: Sequence[Mapping[str, Any]], features: str, names: Iterable[str]) -> dict[str, float | None]:
    """generation, gap: how well one seed orders the named racers as the mean of the others does; what no predictor can much beat.

    None for a single seed, for fewer than three racers, or if a racer broke in one of the seeds.
    """
    scores = [[cell["distances"][features] for cell in cells if cell["racer"] == name] for name in names]
    if len(scores) < 3 or len(scores[0]) < 2 or len({len(row) for row in scores}) > 1:
        return dict.fromkeys(JUDGED)
    by_seed = {
        "generation": [[one["generation"]["value"] for one in row] for row in scores],
        "gap": [[one["gap"] for one in row] for row in scores],
    }
    return {what: _finite(repeatability(torch.tensor(table, dtype=torch.float64))) for what, table in by_seed.items()}


def published(predictor: str) -> RankCorrelation | None:
    """The same statistic over the published autoencoders, with the FID of SiT-XL without guidance; None: not published."""
    column = PUBLISHED.get("ifd" if predictor.startswith("ifd_") else predictor)
    if column is None:
        return None
    rows = [row for row in published_autoencoders().values() if not math.isnan(row[column])]
    x, y = (torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in (column, GENERATION))
    return rank_correlation(x, y, draws=generator("race", "published", column))


def _correlation(points: Mapping[str, Mapping[str, Any]], name: str, features: str, what: str) -> RankCorrelation:
    x = torch.tensor([value_of(point, name, features) for point in points.values()], dtype=torch.float64)
    y = torch.tensor([point["distances"][features][what] for point in points.values()], dtype=torch.float64)
    return rank_correlation(x, y, draws=generator("race", "forecast", name, what))


def _described(found: RankCorrelation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": _finite(found.value),
        "low": _finite(found.low),
        "high": _finite(found.high),
        "chance": found.chance,
        "points": found.points,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
