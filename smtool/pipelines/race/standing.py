"""race.json: what each cell came to, what the seeds can tell apart, what it cost."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from smtool import __version__
from smtool.errors import SmtoolError
from smtool.metrics.ranking import Pair, paired, places, seed_interval
from smtool.pipelines.race.costs import Costs
from smtool.pipelines.race.forecasts import forecasts, points_of
from smtool.pipelines.race.plan import RacePlan
from smtool.spectrum.jackknife import student_t_quantile

SCHEMA = "smtool.race/2"
DISTANCES = ("generation", "reconstruction", "gap")


def quantile(degrees: int) -> float:
    """Of 95 % intervals over seeds."""
    return student_t_quantile(0.975, degrees)


def race_result(plan: RacePlan, step: int, broken: Mapping[str, SmtoolError], costs: Costs) -> dict[str, Any]:
    """All that the page and other races need. Cells that broke are absent; `broken` says why."""
    cells = []
    for cell in plan.cells:
        path = plan.folder / "cells" / f"{cell.key}.json"
        if cell.key not in broken and path.is_file():
            cells.append(json.loads(path.read_text(encoding="utf-8")))
    judge = plan.judge.features[0]
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "smtool": __version__,
        "racers": list(plan.racers),
        "seeds": list(plan.seeds),
        "step": step,
        "steps": plan.steps,
        "tokens": plan.tokens,
        "judge": judge,
        "images": {"train": plan.images.train, "validation": plan.images.validation, "image_size": plan.images.image_size},
        "cells": cells,
        "broken": {key: {"kind": type(error).__name__, "message": error.message} for key, error in broken.items()},
        "costs": costs.spent,
        "autoencoders": {cell.key: cell.autoencoder.key for cell in plan.cells},
    }
    result["standings"] = {name: standing(plan.racers, cells, name) for name in plan.judge.features}
    result["points"] = points_of(result, plan.folder)
    result["forecasts"] = forecasts(result["points"], cells)
    return result


def scores_of(cells: list[dict[str, Any]], features: str, what: str) -> dict[str, dict[int, float]]:
    """racer -> seed -> generation distance, reconstruction distance or their gap."""
    scores: dict[str, dict[int, float]] = {}
    for cell in cells:
        found = cell["distances"][features][what]
        scores.setdefault(cell["racer"], {})[cell["seed"]] = found if isinstance(found, float) else found["value"]
    return scores


def standing(racers: Sequence[str], cells: list[dict[str, Any]], features: str) -> dict[str, Any]:
    """Means over seeds and all pairs, for each of DISTANCES."""
    found: dict[str, Any] = {}
    for what in DISTANCES:
        scores = scores_of(cells, features, what)
        pairs = paired(scores, quantile=quantile)
        place = places([name for name in racers if name in scores], pairs)
        found[what] = {
            "racers": {name: mean_over_seeds(by_seed) | {"place": str(place[name])} for name, by_seed in scores.items()},
            "pairs": [_described(pair) for pair in pairs],
        }
    return found


def mean_over_seeds(by_seed: Mapping[int, float]) -> dict[str, Any]:
    """The mean with the half width of its interval, None for a single seed."""
    value, half_width = seed_interval(by_seed, quantile=quantile)
    return {"value": value, "half_width": _finite(half_width), "seeds": len(by_seed)}


def _described(pair: Pair) -> dict[str, Any]:
    return {
        "better": pair.better,
        "worse": pair.worse,
        "difference": pair.difference,
        "half_width": _finite(pair.half_width),
        "wins": pair.wins,
        "seeds": pair.seeds,
        "told": pair.is_told,
        "sentence": pair.sentence(),
    }


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None
