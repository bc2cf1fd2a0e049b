"""A pass over images shared among ranks: each rank writes the results of its part to a file, and the first joins the files."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from smtool.storage import read_tensors, write_tensors
from smtool.training.distributed import Ranks, wait_for_all

Pass = Callable[[range], dict[str, Tensor]]
"""Positions of images -> named tensors with one row per image; the names are the same on every rank."""


def shared_pass(measure: Pass, count: int, *, batch: int, ranks: Ranks, folder: Path | None) -> dict[str, Tensor]:
    """Results of `measure` for images 0 ... count - 1, in order, on the first rank; an empty dict on other ranks.

    Parts end at multiples of `batch`, so that batches hold the same images as on one rank. Several ranks need a `folder` that all
    can access: they exchange files, and wait until all are written. Every rank must call this function.
    """
    if ranks.world == 1:
        return measure(range(count))
    if folder is None:
        raise ValueError(f"{ranks.world} ranks share a pass through files, but no folder is given")
    place = folder / f".ranks-{_launch()}"
    share = _share(count, batch, ranks)
    found = measure(share) if share else {}
    write_tensors(place / f"{ranks.rank}.safetensors", found, {"positions": [share.start, share.stop]})
    wait_for_all()
    joined = _joined(place, ranks.world) if ranks.first else {}
    wait_for_all()
    return joined


def _share(count: int, batch: int, ranks: Ranks) -> range:
    batches = -(-count // batch)
    start, stop = (min(count, batch * (batches * rank // ranks.world)) for rank in (ranks.rank, ranks.rank + 1))
    return range(start, stop)


def _joined(place: Path, world: int) -> dict[str, Tensor]:
    parts = [part for rank in range(world) if (part := read_tensors(place / f"{rank}.safetensors"))]
    shutil.rmtree(place)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _launch() -> str:
    """A name that is the same on all ranks of one torchrun, and differs between launches."""
    said = [os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")]
    return re.sub(r"[^\w.-]", "", "-".join(said))
