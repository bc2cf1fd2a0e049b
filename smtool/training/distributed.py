"""Ranks under torchrun: rank and device, this rank's slice of the global batch, averages over ranks and gathered rows.

The result for a global batch depends on the number of ranks only by rounding.
"""

import itertools
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.nn import Parameter

from smtool.devices import reason_of
from smtool.errors import RecipeError
from smtool.training.heartbeat import Heartbeat, lost, say_failed


@dataclass(frozen=True)
class Ranks:
    """Number of this process (`rank`) among `world` processes, and the device on which it computes."""

    rank: int
    world: int
    device: str

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def on_gpu(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def local_slice(self, total: int) -> tuple[int, int]:
        """Positions start:stop of this rank in a global batch of `total` samples."""
        size = total // self.world
        return self.rank * size, (self.rank + 1) * size

    def positions(self, count: int) -> list[int]:
        """This rank's share of `count` positions: every world-th. All shares have one length; past the end the last is repeated.

        `gathered_rows` restores the order; what it returns beyond `count` rows are the repetitions.
        """
        return [min(position, count - 1) for position in range(self.rank, count + self.rank, self.world)]


ALONE = Ranks(0, 1, "cpu")
"""A group of one rank: the default where a function accepts ranks."""

_HUNG = timedelta(minutes=30)
_FAREWELL = 10.0
_heartbeat: Heartbeat | None = None
_waits = itertools.count()


def world_size() -> int:
    """Number of processes that torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def device_of_rank(device: str) -> str:
    """The device of this process under torchrun: of "cuda", the GPU with the process's number on its machine.

    Raises RecipeError for a numbered GPU, on which all processes of a machine would meet, and for more processes than GPUs.
    """
    if torch.device(device).type != "cuda":
        return device
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    if device != "cuda" and here > 1:
        raise RecipeError(
            f"--device {device}: all {here} processes of this machine would use this GPU.",
            hint="With --device cuda, each process uses a GPU of its own; CUDA_VISIBLE_DEVICES chooses among the GPUs.",
        )
    if device == "cuda" and local >= there:
        raise RecipeError(
            f"--device cuda: process {local} of this machine has no GPU of its own, because only {there} can be seen.",
            hint=f"Start at most {there} processes per machine, and let each of them see all GPUs.",
        )
    return f"cuda:{local}" if device == "cuda" else device


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join torchrun's process group within the block and leave it afterwards; without torchrun, yield a group of one.

    Raises RankLost if another rank ends early or gives no sign of life: within seconds for one that was killed (gloo) or ended by
    an error, 2 minutes where ranks wait for each other, and half an hour for one that hangs in the middle of a step.
    """
    world = world_size()
    if world > 1:
        device = device_of_rank(device)
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    if world == 1:
        yield Ranks(0, 1, device)
        return
    if device.startswith("cuda"):
        dist.init_process_group("nccl", timeout=_HUNG, device_id=torch.device(device))
    else:
        dist.init_process_group("gloo", timeout=_HUNG)
    global _heartbeat
    rank = dist.get_rank()
    _heartbeat = Heartbeat(_store(), rank, world)
    try:
        yield Ranks(rank, world, device)
        wait_for_all()
        _leave(rank, world)
    except BaseException as error:
        if not isinstance(error, RuntimeError) or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            say_failed(_store(), rank, error)
            raise
        reason = re.sub(r"^\[\S*\] ", "", reason_of(error))[:60].rstrip(": ")      # without the place in gloo's source
        raise lost(rank, world, f"the connection to another rank is lost ({reason})") from error
    finally:
        _heartbeat.stop()
        dist.destroy_process_group()


def _leave(rank: int, world: int) -> None:
    """The first rank, which may hold the store, leaves last."""
    store, key = _store(), "smtool/left"
    left = store.add(key, 1)
    until = time.monotonic() + _FAREWELL
    while rank == 0 and left < world and time.monotonic() < until:
        time.sleep(0.01)
        left = store.add(key, 0)


def averaged(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks; with one rank, the tensor itself."""
    if not several_ranks():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def average_gradients(parameters: Iterable[Parameter]) -> None:
    """Replace each gradient by its mean over the ranks. Parameters without a gradient must be the same on all ranks.

    Gradients of sharded parameters are left as they are: FSDP averages them in the backward pass.
    """
    if not several_ranks():
        return
    from torch.distributed.tensor import DTensor  # takes half a second; imported only with several ranks

    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_dtype.values():
        flat = averaged(_flatten_dense_tensors(gradients))
        for gradient, mean in zip(gradients, _unflatten_dense_tensors(flat, gradients), strict=True):
            gradient.copy_(mean)


def average_values(values: dict[str, Tensor]) -> dict[str, float]:
    """Scalars averaged over the ranks, as floats. Every rank must call it with the same names."""
    if not values:
        return {}
    stacked = averaged(torch.stack([value.detach().float() for value in values.values()]))
    return dict(zip(values, stacked.tolist(), strict=True))


def gathered_rows(rows: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Rows of all ranks, on the CPU of the first; {} on other ranks. Every rank must call it.

    rows: name -> one row for each, or each of the first, of `Ranks.positions`; names, shapes and dtypes are equal on all ranks.
    The result has rows in the order of positions, and at its end repetitions, which the caller cuts off. The ranks first wait for
    each other, however long the rows of one take.
    """
    if ranks.world == 1:
        return {name: value.cpu() for name, value in rows.items()}
    wait_for_all()
    found = {}
    for name, value in rows.items():
        value = value.to(ranks.device).contiguous()
        parts = [torch.empty_like(value) for _ in range(ranks.world)] if ranks.first else None
        dist.gather(value, parts)
        if parts is not None:
            found[name] = torch.stack(parts, 1).flatten(0, 1).cpu()
    return found


def any_rank(flag: bool, device: str) -> bool:
    """Whether the flag is set on any rank, so that all ranks stop or save at the same step."""
    if not several_ranks():
        return flag
    total = torch.tensor(float(flag), device=device)
    dist.all_reduce(total, op=dist.ReduceOp.MAX)
    return bool(total)


@contextmanager
def first_rank_ahead(ranks: Ranks) -> Iterator[None]:
    """The first rank runs the block while the others wait; then the others run it. Every rank must enter it."""
    if not ranks.first:
        wait_for_all()
    yield
    if ranks.first:
        wait_for_all()


def wait_for_all() -> None:
    """Wait until every rank has called this, however long that takes: one may be filling a cache or drawing 10,000 samples.

    It uses the store of the process group, because a collective operation would time out after half an hour.
    """
    if not several_ranks():
        return
    store, key = _store(), f"smtool/{next(_waits)}"
    if store.add(key, 1) == dist.get_world_size():
        store.set(f"{key}/all", "here")
    assert _heartbeat is not None
    _heartbeat.wait_for(f"{key}/all")


def _store() -> dist.Store:
    return dist.distributed_c10d._get_default_store()


def several_ranks() -> bool:
    """Whether this process belongs to a group of two or more."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
