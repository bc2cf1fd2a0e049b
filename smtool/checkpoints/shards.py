"""Sharded safetensors: an index file (`*.safetensors.index.json`) that names, for every tensor, the file that holds it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from smtool.errors import CheckpointError
from smtool.storage import each_tensor, read_shapes, write_json, write_tensors

INDEX = ".safetensors.index.json"
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.safetensors")


def is_index(path: Path) -> bool:
    return path.name.endswith(INDEX)


def index_of(path: Path) -> Path:
    """The index beside a file that is one of several shards (NAME-00001-of-00002.safetensors); other paths unchanged.

    Raises CheckpointError if the index is missing.
    """
    if (found := _SHARD.fullmatch(path.name)) is None:
        return path
    index = path.with_name(f"{found[1]}{INDEX}")
    if not index.is_file():
        raise CheckpointError(
            f"{path} is shard {int(found[2])} of {int(found[3])} of a file, and its index {index.name} is not beside it.",
            hint="Put all shards and the index into one folder.",
        )
    return index


class ShardedFile:
    """The tensors of an index and its shards. Raises CheckpointError if a shard is missing or lacks tensors of the index."""

    def __init__(self, index: Path) -> None:
        self.index = index
        self._placed = _shards(index)
        self.shapes: dict[str, tuple[int, ...]] = {}
        for shard, names in self._placed.items():
            found = read_shapes(shard)
            if missing := [name for name in names if name not in found]:
                raise CheckpointError(
                    f"{index} says that {shard.name} holds {missing[0]}, but it does not.",
                    hint="The index and the shards belong to different files; copy them again together.",
                )
            self.shapes |= {name: found[name] for name in names}

    @property
    def shards(self) -> list[Path]:
        return list(self._placed)

    def tensors(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) for these names, one by one."""
        wanted = set(names)
        for shard, inside in self._placed.items():
            if wanted.intersection(inside):
                yield from ((name, tensor) for name, tensor in each_tensor(shard) if name in wanted)

    def write_like(self, folder: Path, tensors: Mapping[str, Tensor]) -> list[Path]:
        """Write tensors of the same names to shards of the same names, with an index; returns the files. Others are left out."""
        written: list[Path] = []
        places: dict[str, str] = {}
        for shard, inside in self._placed.items():
            if part := {name: tensors[name] for name in inside if name in tensors}:
                written.append(folder / shard.name)
                write_tensors(written[-1], part, {"format": "pt"})
                places |= dict.fromkeys(part, shard.name)
        stated = json.loads(self.index.read_text())
        order = {name: places[name] for name in stated["weight_map"] if name in places}
        size = sum(tensors[name].nbytes for name in order)
        written.append(folder / self.index.name)
        write_json(written[-1], {**stated, "metadata": {**stated.get("metadata", {}), "total_size": size}, "weight_map": order})
        return written


def _shards(index: Path) -> dict[Path, list[str]]:
    """Shard -> names of its tensors."""
    try:
        placed = json.loads(index.read_text())["weight_map"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} is not an index of shards (no readable weight_map).", hint="Copy it again.") from error
    shards: dict[Path, list[str]] = {}
    for name, file in placed.items():
        shards.setdefault(index.parent / file, []).append(name)
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        listed = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise CheckpointError(
            f"{index} names {len(shards)} shards, of which {len(missing)} cannot be found beside it: {listed}.",
            hint=f"Put all of them into {index.parent}.",
        )
    return shards
