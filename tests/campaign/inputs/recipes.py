"""Mutated recipes and --set overrides, of train-ae, train-dit and race: loaded, described, and small ones built."""

import tomllib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import tomli_w

from campaign.mutation import mutated_bytes, mutated_value
from campaign.sandbox import Case, Sandbox
from smtool.commands.inspect.inspection import describe
from smtool.commands.race.plan import plan_race
from smtool.recipe import kind_of, load, packaged
from smtool.recipe.race import is_race, load_race

_SMALL = ("ae.toml", "dit.toml")
_LINES = ("", "x", "=", "steps", "steps=", "steps==1", "=1", "a.b.c=1", "model=1", "model.kind=", 'regularizers."a:b".x=1')


@cache
def _files(originals: Path) -> tuple[Path, ...]:
    few = [
        path for path in sorted(packaged().rglob("*.toml")) if "ablations" not in path.parts and "table" not in str(path.parent)
    ]
    return (*(originals / "old" / name for name in _SMALL * 8), *few)


def case(originals: Path, rng: Random, box: Sandbox) -> Case:
    source = rng.choice(_files(originals))
    text = source.read_bytes()
    overrides: list[str] = []
    match rng.choice(("bytes", "values", "values", "values", "values", "set")):
        case "bytes":
            what, text = mutated_bytes(text, rng)
        case "values":
            what, values = mutated_value(tomllib.loads(text.decode()), rng)
            text = _as_toml(values)
        case _:
            overrides = [_override(tomllib.loads(text.decode()), rng) for _ in range(rng.choice((1, 1, 2)))]
            what = f"--set {' --set '.join(overrides)}"[:200]
    path = box.inside / "recipe.toml"
    path.write_bytes(text)
    return Case(f"{source.name}: {what}", lambda: _used(path, overrides), memory=True)


def _used(path: Path, overrides: list[str]) -> None:
    if is_race(str(path)):
        recipe, entries = load_race(str(path), overrides)
        list(recipe.tables.remarks())
        recipe.resolved_toml()
        plan_race(recipe.tables, entries, Path("race"))
        return
    loaded: Any = load(str(path), kind_of(str(path)), overrides)
    tomllib.loads(loaded.resolved_toml())
    loaded.as_resolved_now(loaded.resolved())
    if not overrides:
        describe(str(path))


def _as_toml(values: Any) -> bytes:
    """TOML of mutated values; what TOML cannot express (null, odd keys) is left out."""
    try:
        return tomli_w.dumps(_without_none(values)).encode(errors="surrogateescape")
    except (TypeError, AttributeError, ValueError, RecursionError):
        return repr(values).encode(errors="surrogateescape")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_none(inner) for inner in value if inner is not None]
    return value


def _override(values: dict[str, Any], rng: Random) -> str:
    if rng.random() < 0.2:
        return rng.choice(_LINES)
    table, parts = values, []
    while True:
        key = rng.choice(list(table))
        parts.append(key)
        if not isinstance(table[key], dict) or not table[key] or rng.random() < 0.2:
            break
        table = table[key]
    _, changed = mutated_value({"value": table[key]}, rng)
    text = next(iter(changed.values()), "") if isinstance(changed, dict) else changed
    return f"{'.'.join(parts)}={str(text)[:300]}"
