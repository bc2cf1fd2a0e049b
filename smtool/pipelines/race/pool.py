"""Several races as one: more autoencoders, so that a rank correlation of predictors means something."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smtool.errors import CheckpointError, RecipeError
from smtool.pipelines.race.forecasts import forecasts
from smtool.pipelines.race.page import write_pooled_report
from smtool.pipelines.race.standing import SCHEMA, standing
from smtool.pipelines.race.tables import show
from smtool.report.console import Console
from smtool.storage import write_json

_ALIKE = ("judge", "step", "steps", "tokens", "seeds")
_ALIKE_FACTS = ("images", "num_images", "sampler", "features")


def is_race_folder(what: str) -> bool:
    return (Path(what) / "race.json").is_file()


def pool_races(folders: Sequence[str], *, console: Console, out: Path | None = None) -> dict[str, Any]:
    """Rank the racers of all races, judge predictors by all their autoencoders; with `out`, also write pooled.json and a page.

    Distances compare only where judge, images, transformer's steps, tokens, seeds and number of samples are equal: else a
    RecipeError. A racer with the same weights of autoencoder and transformer in two races counts once.
    """
    results = [_read(Path(folder)) for folder in folders]
    for folder, result in zip(folders[1:], results[1:], strict=True):
        _check_alike(folders[0], results[0], folder, result)
    pooled = _pooled(folders, results)
    if len(pooled["points"]) < 3:
        raise RecipeError(f"{len(pooled['points'])} autoencoders are too few for a rank correlation; three is the least.")
    show(pooled, console)
    if out is not None:
        write_json(out / "pooled.json", pooled)
        for path in (out / "pooled.json", *write_pooled_report(pooled, out)):
            console.print(str(path))
    return pooled


def _pooled(folders: Sequence[str], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What race.json holds of one race, of all of them."""
    cells: list[dict[str, Any]] = []
    points: dict[str, dict[str, Any]] = {}
    racers: dict[tuple[str, ...], str] = {}
    for folder, result in zip(folders, results, strict=True):
        for name in result["racers"]:
            own = [cell for cell in result["cells"] if cell["racer"] == name]
            weights = tuple(cell["facts"][part] for cell in own for part in ("autoencoder", "transformer"))
            if not own or weights in racers:
                continue
            called = racers[weights] = name if name not in racers.values() else f"{Path(folder).name}/{name}"
            cells += [cell | {"racer": called} for cell in own]
            point = result["points"].get(name)
            if point and point["digests"] not in [known["digests"] for known in points.values()]:
                points[called] = point
    first = results[0]
    names = list(racers.values())
    return {
        "schema": SCHEMA,
        "races": list(folders),
        **{key: first[key] for key in _ALIKE},
        "images": first["images"],
        "racers": names,
        "cells": cells,
        "broken": {},
        "standings": {features: standing(names, cells, features) for features in first["standings"]},
        "points": points,
        "forecasts": forecasts(points, cells),
    }


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "race.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    if result.get("schema") != SCHEMA or not result["cells"]:
        raise CheckpointError(f"{path} holds no finished race of this version ({result.get('schema')}).", hint="Run it again.")
    return dict(result)


def _check_alike(first: str, ours: dict[str, Any], other: str, theirs: dict[str, Any]) -> None:
    pairs = {key: (ours[key], theirs[key]) for key in _ALIKE}
    pairs |= {key: (ours["cells"][0]["facts"][key], theirs["cells"][0]["facts"][key]) for key in _ALIKE_FACTS}
    if unlike := [f"{key}: {a} and {b}" for key, (a, b) in pairs.items() if a != b]:
        raise RecipeError("\n  ".join([f"{first} and {other} cannot be pooled, since their distances do not compare:", *unlike]))
