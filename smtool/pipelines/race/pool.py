"""Several races together: more autoencoders, so that a rank correlation of predictors means something."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smtool.errors import CheckpointError, RecipeError
from smtool.pipelines.race.figures import forecast_figure
from smtool.pipelines.race.forecasts import forecasts
from smtool.pipelines.race.standing import SCHEMA
from smtool.pipelines.race.tables import forecast_table
from smtool.report.console import Console
from smtool.report.plots import figure_bytes
from smtool.storage import write_bytes, write_json

_ALIKE = ("judge", "step", "tokens", "seeds")
_ALIKE_FACTS = ("images", "num_images", "sampler", "features")


def is_race_folder(what: str) -> bool:
    return (Path(what) / "race.json").is_file()


def pool_races(folders: Sequence[str], *, console: Console, out: Path | None = None) -> dict[str, Any]:
    """Rank correlations over the autoencoders of all races; with `out`, also pooled.json and forecasts.png there.

    Distances compare only where judge, images, transformer's steps, tokens, seeds and number of samples are equal: else a
    RecipeError. An autoencoder with the same weights in two races counts once.
    """
    results = [_read(Path(folder)) for folder in folders]
    for folder, result in zip(folders[1:], results[1:], strict=True):
        _check_alike(folders[0], results[0], folder, result)
    points: dict[str, dict[str, Any]] = {}
    seen: set[tuple[str, ...]] = set()
    for folder, result in zip(folders, results, strict=True):
        for name, point in result["points"].items():
            weights = tuple(point["digests"])
            if weights not in seen:
                seen.add(weights)
                points[name if name not in points else f"{Path(folder).name}/{name}"] = point
    if len(points) < 3:
        raise RecipeError(f"{len(points)} autoencoders are too few for a rank correlation; three is the least.")
    pooled = {"schema": SCHEMA, "races": list(folders), "points": points, "forecasts": forecasts(points)}
    console.print(forecast_table(pooled))
    if out is not None:
        write_json(out / "pooled.json", pooled)
        write_bytes(out / "forecasts.png", figure_bytes(forecast_figure(pooled), "png"))
        console.print(str(out / "pooled.json"))
    return pooled


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
