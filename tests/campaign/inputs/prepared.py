"""Mutated folders of `smtool prepare`: cards, indices and shards of images, latents and features."""

import io
import json
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from campaign.mutation import mutated_bytes, mutated_value
from campaign.sandbox import Case, Sandbox
from smtool.commands.inspect.inspection import describe
from smtool.commands.prepare.images import prepare
from smtool.data import open_images, open_latents, read_card, verify
from smtool.data.features.card import read_feature_card
from smtool.data.features.shards import FeatureShards
from smtool.evaluation.image_sources import open_source

_FOLDERS = {"dataset.json": "photos", "latents.json": "latents", "features.json": "teacher-features"}


@cache
def _contents(originals: Path, card: str) -> dict[str, bytes]:
    folder = originals / "old/data" / _FOLDERS[card]
    if card != "dataset.json":
        (folder,) = folder.iterdir()
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def case(originals: Path, rng: Random, box: Sandbox) -> Case:
    card = rng.choice(("dataset.json", "dataset.json", "latents.json", "features.json"))
    files = dict(_contents(originals, card))
    what = rng.choice((_in_card, _in_card, _in_card, _in_index, _in_index, _in_file, _beside))(files, card, rng)
    # `prepare` may write into its folder, so that one is the output
    again = card == "dataset.json" and rng.random() < 0.15
    folder = (box.out if again else box.inside) / "data"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    if again:
        return Case(f"prepare into {what}", lambda: prepare("builtin:photos?train=8&val=4", out=folder, size=32, workers=1))
    return Case(what, lambda: _USES[card](folder))


def _in_card(files: dict[str, bytes], card: str, rng: Random) -> str:
    if rng.random() < 0.2:
        what, files[card] = mutated_bytes(files[card], rng)
    else:
        what, value = mutated_value(json.loads(files[card]), rng)
        files[card] = json.dumps(value).encode()
    return f"{card}: {what}"


def _in_index(files: dict[str, bytes], card: str, rng: Random) -> str:
    """Another index, with its digest in the card, as a tool that rewrites both would leave it."""
    name = rng.choice([name for name in files if name.endswith(".npy")])
    if rng.random() < 0.4:
        what, files[name] = mutated_bytes(files[name], rng)
    else:
        rows = np.load(io.BytesIO(files[name])).copy()
        field = rng.choice(rows.dtype.names)
        row = rng.randrange(len(rows))
        limits = np.iinfo(rows.dtype[field].base)
        rows[field][row] = rng.choice((0, 1, limits.max, limits.min, limits.max // 2, 7))
        what = f"{field} of row {row} = {rows[field][row]}"
        rows = rng.choice((rows, rows, rows, rows[:-1], np.concatenate([rows, rows]), rows[::-1]))
        changed = io.BytesIO()
        np.save(changed, rows)
        files[name] = changed.getvalue()
    value = json.loads(files[card])
    for shard in (*value.get("train", ()), *value.get("val", ()), *value.get("shards", ())):
        if shard["name"].removesuffix(".tar") == name.removesuffix(".npy"):
            shard["index_sha256"] = sha256(files[name]).hexdigest()
    files[card] = json.dumps(value).encode()
    return f"{name}: {what}"


def _in_file(files: dict[str, bytes], card: str, rng: Random) -> str:
    name = rng.choice(list(files))
    what, files[name] = mutated_bytes(files[name], rng)
    return f"{name}: {what}"


def _beside(files: dict[str, bytes], card: str, rng: Random) -> str:
    """A file lost or too many."""
    name = rng.choice(list(files))
    if rng.random() < 0.7:
        del files[name]
        return f"{name} lost"
    other = rng.choice(("skipped.jsonl", ".unfinished", "train-000001.tar", "x.png"))
    files[other] = rng.randbytes(100)
    return f"{other} beside {name}"


def _use_images(folder: Path) -> None:
    describe(str(folder))
    card = read_card(folder)
    for split in ("train", "val"):
        images = open_images(str(folder), split, image_size=card.image_size)  # type: ignore[arg-type]
        _ = images.groups
        images.read(range(min(4, len(images))))
    verify(folder, card)
    list(open_source(str(folder)).read(range(2), 2))


def _use_latents(folder: Path) -> None:
    describe(str(folder))
    latents = open_latents(folder, autoencoder=None, data=None)
    flipped: Any = [latents.flip] * min(4, len(latents))
    latents.read(range(len(flipped)), flipped)


def _use_features(folder: Path) -> None:
    describe(str(folder))
    features = FeatureShards(folder, read_feature_card(folder))
    features.read(range(min(4, len(features))), [False] * min(4, len(features)))


_USES = {"dataset.json": _use_images, "latents.json": _use_latents, "features.json": _use_features}
