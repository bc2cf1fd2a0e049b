"""Mutated npz files (images, moments), race.json, samples.json and sample folders."""

import io
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from campaign.mutation import mutated_bytes, mutated_value
from campaign.sandbox import Case, Sandbox
from smtool.commands.race.pool import pool_races
from smtool.evaluation.image_sources import open_source
from smtool.report.console import Console


@cache
def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def case(originals: Path, rng: Random, box: Sandbox) -> Case:
    return rng.choice((_npz, _npz, _npz, _race, _samples, _samples))(originals, rng, box)


def _npz(originals: Path, rng: Random, box: Sandbox) -> Case:
    name = rng.choice(("images.npz", "moments.npz"))
    data, path = _bytes(originals / "results" / name), box.inside / name
    if rng.random() < 0.5:
        what, data = mutated_bytes(data, rng)
    else:
        what, data = _other_arrays(data, rng)
    path.write_bytes(data)
    return Case(f"{name}: {what}", lambda: _read(str(path)))


def _other_arrays(data: bytes, rng: Random) -> tuple[str, bytes]:
    arrays: dict[str, Any] = dict(np.load(io.BytesIO(data)))
    name = rng.choice(list(arrays))
    value, what = (
        arrays[name],
        rng.choice(("lost", "float", "flat", "nan", "objects", "turned", "none", "text", "renamed", "scalar")),
    )
    if what in ("lost", "renamed"):
        del arrays[name]
        if what == "renamed":
            arrays[rng.choice(("arr_0", "mu", "sigma", "mu_s", "smtool", "x"))] = value
    else:
        arrays[name] = {
            "float": lambda: value.astype(np.float32),
            "flat": lambda: value.reshape(-1),
            "nan": lambda: np.full(value.shape, np.nan),
            "objects": lambda: np.array([{"x": 1}], dtype=object),
            "turned": lambda: np.asfortranarray(value.T),
            "none": lambda: value[:0],
            "text": lambda: np.array("text"),
            "scalar": lambda: np.array(3),
        }[what]()
    out = io.BytesIO()
    np.savez(out, **arrays)
    return f"{name} {what}", out.getvalue()


def _read(path: str) -> None:
    source = open_source(path)
    if source.count:
        list(source.read(range(min(2, source.count)), 2))


def _race(originals: Path, rng: Random, box: Sandbox) -> Case:
    data = _bytes(originals / "results/race.json")
    if rng.random() < 0.3:
        what, data = mutated_bytes(data, rng)
    else:
        what, value = mutated_value(json.loads(data), rng)
        data = json.dumps(value).encode()
    (box.inside / "race.json").write_bytes(data)
    return Case(f"race.json: {what}", lambda: pool_races([str(box.inside)], console=Console(file=io.StringIO())))


def _samples(originals: Path, rng: Random, box: Sandbox) -> Case:
    """A folder of samples with a changed samples.json or picture."""
    folder = originals / "old/samples"
    chosen = rng.choice(("samples.json", "samples.json", "000001.png"))
    what = ""
    for path in folder.iterdir():
        data = _bytes(path)
        if path.name == chosen:
            if chosen.endswith(".json") and rng.random() < 0.7:
                what, value = mutated_value(json.loads(data), rng)
                data = json.dumps(value).encode()
            else:
                what, data = mutated_bytes(data, rng)
        (box.inside / path.name).write_bytes(data)
    return Case(f"{chosen}: {what}", lambda: _read(str(box.inside)))
