"""race.json: what each cell came to, what the seeds can tell apart, what it cost; and the table of it."""

import json
from collections.abc import Mapping
from typing import Any

from smtool import __version__
from smtool.errors import SmtoolError
from smtool.metrics.ranking import Pair, paired, places, seed_interval
from smtool.pipelines.race.costs import Costs
from smtool.pipelines.race.forecasts import forecasts, points_of
from smtool.pipelines.race.plan import RacePlan
from smtool.report.console import Console
from smtool.report.tables import Table, interval
from smtool.spectrum.jackknife import student_t_quantile

SCHEMA = "smtool.race/1"
H100_HOURS = 24.0
"""What the usual answer costs for each autoencoder: a transformer of 100,000 steps on 8 GPUs (LightningDiT, issue 74)."""
STAGES = ("train-ae", "encode", "train-dit", "score", "predict")
STAGE_TITLES = ("autoencoder", "latents", "transformer", "scores", "predictors")
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
    result["standings"] = {name: _standing(plan.racers, cells, name) for name in plan.judge.features}
    result["points"] = points_of(result, plan.folder)
    result["forecasts"] = forecasts(result["points"])
    return result


def scores_of(cells: list[dict[str, Any]], features: str, what: str) -> dict[str, dict[int, float]]:
    """racer -> seed -> generation distance, reconstruction distance or their gap."""
    scores: dict[str, dict[int, float]] = {}
    for cell in cells:
        found = cell["distances"][features][what]
        scores.setdefault(cell["racer"], {})[cell["seed"]] = found if isinstance(found, float) else found["value"]
    return scores


def _standing(racers: tuple[str, ...], cells: list[dict[str, Any]], features: str) -> dict[str, Any]:
    """Means over seeds and all pairs, for each of DISTANCES."""
    standing: dict[str, Any] = {}
    for what in DISTANCES:
        scores = scores_of(cells, features, what)
        pairs = paired(scores, quantile=quantile)
        place = places([name for name in racers if name in scores], pairs)
        standing[what] = {
            "racers": {name: _mean(by_seed) | {"place": str(place[name])} for name, by_seed in scores.items()},
            "pairs": [_described(pair) for pair in pairs],
        }
    return standing


def _mean(by_seed: Mapping[int, float]) -> dict[str, Any]:
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


def show(result: Mapping[str, Any], console: Console) -> None:
    """The table, and what can be told."""
    console.print(ranking_table(result))
    for pair in result["standings"][result["judge"]]["generation"]["pairs"]:
        console.print(pair["sentence"])
    if result["forecasts"]:
        console.print(forecast_table(result))


def forecast_table(result: Mapping[str, Any]) -> Table:
    """A row for each predictor: how it ranks the racers by generation distance and by gap, and the published autoencoders."""
    rows = []
    for entry in result["forecasts"].values():
        both = [cell for what in ("generation", "gap") for cell in (_rho(entry[what]), f"{entry[what]['chance']:.2f}")]
        rows.append((entry["title"], *both, _rho(entry["published"]) if entry["published"] else "-"))
    count = len(result["points"])
    return Table(
        f"Rank correlation of {count} autoencoders with what the race found",
        ("predictor", "generation", "chance", "gap", "chance", "published"),
        tuple(rows),
        "Spearman's correlation and its 95 % bootstrap interval over autoencoders (each the mean of its seeds); chance: share of "
        "random orders at least as strong, either way, for one predictor looked at alone. Positive: a larger value goes with "
        "worse samples. published: the same statistic over up to 22 public autoencoders and SiT-XL's FID (arXiv 2603.05630).",
    )


def cost_table(result: Mapping[str, Any]) -> Table:
    """What each racer cost: seconds of wall time and of cores, by stage, all seeds together; shared autoencoders count once."""
    costs: Mapping[str, Mapping[str, tuple[float, float]]] = result["costs"]
    counted: set[str] = set()
    rows = []
    for racer in result["racers"]:
        cells = [f"{racer}-seed{seed}" for seed in result["seeds"]]
        keys = [key for key in [*(result["autoencoders"].get(cell, "") for cell in cells), *cells] if key not in counted]
        keys = list(dict.fromkeys(keys))
        counted |= set(keys)
        stages = [sum(costs.get(key, {}).get(stage, (0.0, 0.0))[0] for key in keys) for stage in STAGES]
        cores = sum(pair[1] for key in keys for pair in costs.get(key, {}).values())
        share = f"{sum(stages) / (H100_HOURS * 3600 * len(result['seeds'])):.2%}"
        rows.append((racer, *(f"{seconds:,.0f}" for seconds in stages), f"{sum(stages):,.0f}", f"{cores:,.0f}", share))
    return Table(
        "Seconds, all seeds together",
        ("racer", *STAGE_TITLES, "in all", "core-seconds", "of 24 H100-hours"),
        tuple(rows),
        "An autoencoder that several racers share is counted once, for the first. The last column is the time for one seed, of "
        "whatever this race ran on, over 24 hours of one H100: a comparison of waiting, not of machines.",
    )


def _rho(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "-"
    bounds = "" if entry["low"] is None else f" [{entry['low']:+.2f}, {entry['high']:+.2f}]"
    return f"{entry['value']:+.2f}{bounds}"


def ranking_table(result: Mapping[str, Any], judge: str | None = None) -> Table:
    """A row for each racer, the best first; broken ones last. judge: of several extractors, by which; default the first."""
    judge = judge or str(result["judge"])
    standing = result["standings"][judge]
    generation = standing["generation"]["racers"]
    rows = []
    for name in sorted(generation, key=lambda name: generation[name]["value"]):
        cells = [cell for cell in result["cells"] if cell["racer"] == name]
        distances = [seed_cell(standing[what]["racers"][name]) for what in DISTANCES]
        psnr = _mean({cell["seed"]: cell["psnr"]["value"] for cell in cells})
        learnt = _mean({cell["seed"]: sum(cell["losses"]["learnt"]) / len(cell["losses"]["learnt"]) for cell in cells})
        share = f"{100 * learnt['value']:.0f} %"
        rows.append((generation[name]["place"], name, *distances, seed_cell(psnr), share, str(len(cells))))
    for name in result["racers"]:
        if name not in generation:
            rows.append(("-", name, "broke", "", "", "", "", "0"))
    title = next(iter(result["cells"]))["distances"][judge]["name"] if result["cells"] else judge
    return Table(
        f"Race at step {result['step']:,} of {result['steps']:,}, by {title}",
        ("place", "racer", "generation", "reconstruction", "gap", "PSNR, dB", "learnt", "seeds"),
        tuple(rows),
        _note(result),
    )


def seed_cell(entry: Mapping[str, Any]) -> str:
    """Mean over seeds with its interval, to the digits it deserves."""
    size = abs(entry["value"])
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 4
    return interval(entry["value"], entry["half_width"], digits=digits)


def _note(result: Mapping[str, Any]) -> str:
    lines = [
        f"Mean over seeds ± 95 % (Student's t); {result['tokens']} tokens for all. Place: as far as seeds, paired, can tell.",
        "Generation, reconstruction: distances to the same training images, of equally many images; gap: their difference.",
    ]
    lines += [f"{key} broke: {error['message']}" for key, error in result["broken"].items()]
    return "\n".join(lines)
