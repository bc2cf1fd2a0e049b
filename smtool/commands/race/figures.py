"""Figures of a race's page, from its result and the logs of its runs."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from smtool.commands.race.predictor_correlations import value_of
from smtool.commands.race.result import RaceResult, Ranking, Result
from smtool.commands.race.tables import chance
from smtool.commands.race.trial import Distances, Predictors, predictors_path, read_kept
from smtool.report.plots.race import (
    PredictorPanel,
    Strip,
    predictor_panels_figure,
    race_curves_figure,
    race_spectra_figure,
    strips_figure,
)
from smtool.report.plots.style import Curve
from smtool.report.trackers import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SMOOTHED = 5      # number of logged rows averaged into one point of a loss curve


def seeds_figure(result: Result) -> "Figure":
    """Generation distance, reconstruction distance and gap of every racer and seed."""
    rankings, name = result.rankings[result.judge], result.trials[0].distances[result.judge].name
    return strips_figure({
        f"generation ({name})": _strips(result, rankings.generation, lambda found: found.generation.value),
        f"reconstruction ({name})": _strips(result, rankings.reconstruction, lambda found: found.reconstruction.value),
        "gap": _strips(result, rankings.gap, lambda found: found.gap),
    })


def _strips(result: Result, ranking: Ranking, score: Callable[[Distances], float]) -> list[Strip]:
    strips = []
    for name in result.by_generation():
        scores = [score(trial.distances[result.judge]) for trial in result.trials_of(name)]
        mean = ranking.racers[name]
        strips.append(Strip(name, scores, mean.value, mean.half_width, _colour(result, name)))
    return strips


def curves_figure(result: RaceResult, folder: Path) -> "Figure":
    """PSNR of autoencoders, loss of transformers, and distance of the samples drawn in validations, against steps."""
    panels: dict[str, list[Curve]] = {"autoencoders, validation": [], "transformers": [], "samples in validations": []}
    distance = "val_fd"
    for name in result.by_generation():
        trials, colour = result.trials_of(name), _colour(result, name)
        autoencoders = [read_metrics(folder / "autoencoders" / trial.autoencoder / "metrics.jsonl") for trial in trials]
        runs = [read_metrics(folder / "transformers" / f"{name}-seed{trial.seed}" / "metrics.jsonl") for trial in trials]
        columns = [key for run in runs for row in run for key in row if key.startswith("val_fd")]
        distance = columns[0] if columns else distance
        panels["autoencoders, validation"] += _curve(name, autoencoders, "val_psnr", colour)
        panels["transformers"] += _curve(name, [_smooth(run, "diffusion") for run in runs], "diffusion", colour)
        panels["samples in validations"] += _curve(name, runs, distance, colour)
    shown = {key: curves for key, curves in panels.items() if curves}
    labels = {
        "autoencoders, validation": "PSNR (dB)",
        "transformers": "loss",
        "samples in validations": distance.removeprefix("val_"),
    }
    return race_curves_figure(shown, [labels[key] for key in shown])


def spectra_figure(result: RaceResult, folder: Path) -> "Figure":
    """Spectra of samples, reconstructions and latents of every racer."""
    samples, latents = [], []
    for name in result.by_generation():
        trials, colour = result.trials_of(name), _colour(result, name)
        spectra, frequency = [trial.spectra for trial in trials], trials[0].spectra.frequency
        drawn = _mean_decibels([(one.samples, one.images) for one in spectra])
        decoded = _mean_decibels([(one.reconstructions, one.images) for one in spectra])
        samples.append(Curve(name, frequency, drawn, role="latent", colour=colour))
        samples.append(Curve(name, frequency, decoded, role="control", colour=colour))
        known = read_kept(predictors_path(folder, trials[0].autoencoder), Predictors)
        if known is not None and known.spectrum is not None and name in result.points:
            residual = known.spectrum
            latents.append(Curve(name, _numbers(residual.cycles_per_side), _numbers(residual.residual_db), colour=colour))
    return race_spectra_figure(samples, latents)


def predictors_figure(result: Result) -> "Figure":
    """Every predictor against the generation distance."""
    judge, found = result.judge, []
    for name, entry in result.predictor_correlations[judge].predictors.items():
        rho = entry.generation.value
        note = "rho: none" if rho is None else f"rho {rho:+.2f}, p {chance(entry.generation)}"
        places = {
            racer: (value_of(point, name, judge), point.distances[judge].generation) for racer, point in result.points.items()
        }
        found.append(PredictorPanel(_folded(entry.title), places, note))
    return predictor_panels_figure(found)


def _mean_decibels(powers: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[float]:
    """Mean over seeds of power over reference, in dB. powers: (power, reference) of each seed."""
    ratios = [[10 * math.log10(a / b) for a, b in zip(power, reference, strict=True)] for power, reference in powers]
    return [fmean(ring) for ring in zip(*ratios, strict=True)]


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _colour(result: Result, name: str) -> int:
    """Colour index of a racer: its position in the recipe, so that it is the same in every figure."""
    return result.racers.index(name)


def _curve(name: str, runs: Sequence[list[dict[str, Any]]], key: str, colour: int) -> list[Curve]:
    """Mean and range over seeds, at the steps that all seeds logged; [] if there are none."""
    logged = [{row["step"]: row[key] for row in run if key in row} for run in runs]
    steps = sorted(set.intersection(*(set(one) for one in logged))) if logged else []
    if not steps:
        return []
    table = [[one[step] for one in logged] for step in steps]
    mean = [fmean(row) for row in table]
    low, high = ([bound(row) for row in table] if len(logged) > 1 else None for bound in (min, max))
    return [Curve(name, steps, mean, low, high, colour=colour)]


def _smooth(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Rows averaged in groups of up to _SMOOTHED, at the step of the last row of each group."""
    rows = [row for row in rows if key in row]
    size = max(1, min(_SMOOTHED, len(rows) // 4))
    parts = [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
    return [{"step": part[-1]["step"], key: fmean(row[key] for row in part)} for part in parts]


def _folded(text: str) -> str:
    """The text, broken before its bracket if it is long."""
    head, bracket, tail = text.partition(" (")
    return f"{head}\n({tail}" if bracket and len(text) > 24 else text
