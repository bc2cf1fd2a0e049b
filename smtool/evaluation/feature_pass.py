"""Features of images from one pass, cached on disk under a key of everything they depend on."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smtool import __version__
from smtool.errors import CheckpointError, DiskError
from smtool.evaluation.image_sources import ImageSource
from smtool.evaluation.moments import judge_summary
from smtool.features.extractor import Extractor, View
from smtool.features.pictures import moved
from smtool.features.protocol import Protocol
from smtool.inference.rank_files import shared_pass
from smtool.storage import read_metadata, read_tensors, write_tensors
from smtool.training.distributed import ALONE, Ranks, wait_for_all

FEATURES_FOLDER = Path("data/features")


@dataclass(frozen=True)
class Wanted:
    """One view of one extractor."""

    extractor: Extractor
    view: View = "pooled"


Table = dict[tuple[str, View], Tensor]
"""(extractor's score name, view) -> features (N, dim) float32 on the CPU."""


def table_of_features(
    source: ImageSource,
    wanted: Sequence[Wanted],
    protocol: Protocol,
    *,
    count: int,
    batch: int,
    folder: Path | None = FEATURES_FOLDER,
    report: Callable[[int, int], object] | None = None,
    say: Callable[[str], object] = lambda line: None,
    ranks: Ranks = ALONE,
) -> Table:
    """Features of the first `count` images of a source: read from `folder` where cached, the others computed in one pass.

    A cached file is used only if its whole key is equal: images, weights, view, resize, codec, count, version. folder None: no
    cache. say: called with a line on what was reused or could not be stored. Several ranks share the pass and need a folder; only
    the first rank returns the whole table.
    """
    cache_key = {(item.extractor.score, item.view): _cache_key(source, item, protocol, count) for item in wanted}
    table: Table = {}
    if folder is not None:
        stored = {key: _stored(folder, cache_key) for key, cache_key in cache_key.items()}
        table = {key: features for key, features in stored.items() if features is not None}
    missing = [item for item in wanted if (item.extractor.score, item.view) not in table]
    if table:
        say(f"{source.name}: features of {', '.join(sorted({name for name, _ in table}))} reused from {folder}")
    if missing:
        def measure(positions: range) -> dict[str, Tensor]:
            return {"/".join(key): value for key, value in _pass(source, missing, protocol, positions, batch, report).items()}

        found = shared_pass(measure, count, batch=batch, ranks=ranks, folder=folder)
        table |= {key: found["/".join(key)] for key in cache_key if "/".join(key) in found}
        if folder is not None and ranks.first:
            for item in missing:
                key = (item.extractor.score, item.view)
                _store(folder, cache_key[key], table[key], say)
        wait_for_all()  # so that all ranks find the same files in the next pass
    return table


@torch.no_grad()
def _pass(
    source: ImageSource,
    wanted: Sequence[Wanted],
    protocol: Protocol,
    positions: range,
    batch: int,
    report: Callable[[int, int], object] | None,
) -> Table:
    parts: dict[tuple[str, View], list[Tensor]] = {(item.extractor.score, item.view): [] for item in wanted}
    extractors = {item.extractor.score: item.extractor for item in wanted}
    views = {name: [view for other, view in parts if other == name] for name in extractors}
    done = 0
    for images in source.read(positions, batch):
        coded = protocol.coded(images)
        for name, extractor in extractors.items():
            seen = extractor.look(moved(coded, extractor.device))
            for view in views[name]:
                parts[name, view].append(seen[view].cpu())
        done += len(images)
        if report:
            report(done, len(positions))
    return {key: torch.cat(features) for key, features in parts.items()}


def _cache_key(source: ImageSource, item: Wanted, protocol: Protocol, count: int) -> dict[str, Any]:
    """Everything that these features depend on."""
    return {
        "smtool": __version__,
        "kind": "features",
        "images": source.digest,
        "count": count,
        "view": item.view,
        **judge_summary(item.extractor, protocol),
    }


def _path(folder: Path, cache_key: dict[str, Any]) -> Path:
    key = hashlib.sha256(json.dumps(cache_key, sort_keys=True).encode()).hexdigest()
    return folder / f"{cache_key['extractor']}-{cache_key['view']}-{key[:16]}.safetensors"


def _stored(folder: Path, cache_key: dict[str, Any]) -> Tensor | None:
    """The features in the file with exactly this key; None if the file is missing, damaged or has another key."""
    path = _path(folder, cache_key)
    if not path.is_file():
        return None
    try:
        features = read_tensors(path)["features"] if read_metadata(path) == cache_key else None
    except (CheckpointError, KeyError):
        return None
    return features if features is not None and len(features) == cache_key["count"] else None


def _store(folder: Path, cache_key: dict[str, Any], features: Tensor, say: Callable[[str], object]) -> None:
    """Write the cache file. A full or read-only disk is reported and not an error, because scores do not need the file."""
    try:
        write_tensors(_path(folder, cache_key), {"features": features}, cache_key)
    except DiskError as error:
        say(f"The features of {cache_key['extractor']} are not cached: {error.message}")
