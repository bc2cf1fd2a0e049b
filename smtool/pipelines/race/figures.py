"""From race.json and the runs' logs to the figures of the page."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from smtool.pipelines.race.forecasts import title, value_of
from smtool.pipelines.race.standing import DISTANCES, scores_of
from smtool.pipelines.race.tables import chance
from smtool.report.plots.race import (
    Forecast,
    Strip,
    forecasts_figure,
    race_curves_figure,
    race_spectra_figure,
    strips_figure,
)
from smtool.report.plots.style import Curve
from smtool.report.trackers import read_metrics

Result = Mapping[str, Any]
_SMOOTHED = 5      # logged rows that one point of a loss curve is the mean of


def seeds_figure(result: Result) -> Figure:
    judge = result["judge"]
    panels: dict[str, list[Strip]] = {}
    for what in DISTANCES:
        scores, standing = scores_of(result["cells"], judge, what), result["standings"][judge][what]["racers"]
        panels[f"{what} ({result['cells'][0]['distances'][judge]['name']})" if what != "gap" else "gap"] = [
            Strip(name, list(scores[name].values()), standing[name]["value"], standing[name]["half_width"], _colour(result, name))
            for name in _by_generation(result)
        ]
    return strips_figure(panels)


def curves_figure(result: Result, folder: Path) -> Figure:
    """PSNR of autoencoders, loss of transformers, and distance of the samples drawn while training."""
    panels: dict[str, list[Curve]] = {"autoencoders, validation": [], "transformers": [], "samples while training": []}
    distance = "val_fd"
    for name in _by_generation(result):
        cells = [cell for cell in result["cells"] if cell["racer"] == name]
        colour = _colour(result, name)
        autoencoders = [read_metrics(folder / "autoencoders" / cell["autoencoder"] / "metrics.jsonl") for cell in cells]
        runs = [read_metrics(folder / "transformers" / f"{name}-seed{cell['seed']}" / "metrics.jsonl") for cell in cells]
        columns = [key for run in runs for row in run for key in row if key.startswith("val_fd")]
        distance = columns[0] if columns else distance
        panels["autoencoders, validation"] += _curve(name, autoencoders, "val_psnr", colour)
        panels["transformers"] += _curve(name, [_smooth(run, "diffusion") for run in runs], "diffusion", colour)
        panels["samples while training"] += _curve(name, runs, distance, colour)
    shown = {key: curves for key, curves in panels.items() if curves}
    labels = {
        "autoencoders, validation": "PSNR (dB)",
        "transformers": "loss",
        "samples while training": distance.removeprefix("val_"),
    }
    return race_curves_figure(shown, [labels[key] for key in shown])


def spectra_figure(result: Result, folder: Path) -> Figure:
    samples, latents = [], []
    for name in _by_generation(result):
        cells = [cell["spectra"] for cell in result["cells"] if cell["racer"] == name]
        colour = _colour(result, name)
        for what, role in (("samples", "latent"), ("reconstructions", "control")):
            ratio = [fmean(10 * math.log10(one[what][k] / one["images"][k]) for one in cells) for k in range(len(cells[0][what]))]
            samples.append(Curve(name, cells[0]["frequency"], ratio, role=role, colour=colour))  # type: ignore[arg-type]
        key = next(cell["autoencoder"] for cell in result["cells"] if cell["racer"] == name)
        path = folder / "predictors" / f"{key}.json"
        spectrum = json.loads(path.read_text(encoding="utf-8")).get("spectrum") if path.is_file() else None
        if spectrum and name in result["points"]:
            latents.append(Curve(name, spectrum["cycles_per_side"], spectrum["residual_db"], colour=colour))
    return race_spectra_figure(samples, latents)


def forecast_figure(result: Result) -> Figure:
    points, judge = result["points"], result["judge"]
    found = []
    for name, entry in result["forecasts"][judge]["predictors"].items():
        rho = entry["generation"]["value"]
        note = "rho: none" if rho is None else f"rho {rho:+.2f}, chance {chance(entry['generation'])}"
        places = {
            racer: (value_of(point, name, judge), point["distances"][judge]["generation"]) for racer, point in points.items()
        }
        found.append(Forecast(_folded(title(name)), places, note))
    return forecasts_figure(found)


def _by_generation(result: Result) -> list[str]:
    """Racers, the best mean first."""
    standing = result["standings"][result["judge"]]["generation"]["racers"]
    return sorted(standing, key=lambda name: standing[name]["value"])


def _colour(result: Result, name: str) -> int:
    """A racer's colour is its place in the recipe, so that it is the same in every figure."""
    return list(result["racers"]).index(name)


def _curve(name: str, runs: Sequence[list[dict[str, Any]]], key: str, colour: int) -> list[Curve]:
    """Mean over seeds, with their range, at the steps that all of them logged."""
    logged = [{row["step"]: row[key] for row in run if key in row} for run in runs]
    steps = sorted(set.intersection(*(set(one) for one in logged))) if logged else []
    if not steps:
        return []
    table = [[one[step] for one in logged] for step in steps]
    mean = [fmean(row) for row in table]
    low, high = ([bound(row) for row in table] if len(logged) > 1 else None for bound in (min, max))
    return [Curve(name, steps, mean, low, high, colour=colour)]


def _smooth(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Means of _SMOOTHED rows each, at the step of their last."""
    rows = [row for row in rows if key in row]
    size = max(1, min(_SMOOTHED, len(rows) // 4))
    parts = [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
    return [{"step": part[-1]["step"], key: fmean(row[key] for row in part)} for part in parts]


def _folded(text: str) -> str:
    """In two lines, at the bracket, where it is long."""
    head, bracket, tail = text.partition(" (")
    return f"{head}\n({tail}" if bracket and len(text) > 24 else text
