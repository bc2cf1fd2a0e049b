"""Transformers too large for each rank to hold whole: parameters, gradients, optimizer state and average in shards (FSDP2).

Every block is gathered when it is computed with and let go afterwards; the rest of the network (embeddings, last layer) stays
whole from the forward to the backward pass. Files stay ordinary: the first rank gathers tensor by tensor and writes them whole.
"""

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

import torch
from pydantic import Field
from torch import Tensor, nn

from smtool.config import Config
from smtool.training.distributed import Ranks

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class Parallel(Config):
    """How the ranks of torchrun hold a transformer."""

    shard_above: int = Field(
        300_000_000, ge=0, description="parameters above which each rank holds a shard instead of a copy; one rank never shards"
    )

    def applies(self, module: nn.Module, ranks: Ranks) -> bool:
        return ranks.world > 1 and sum(parameter.numel() for parameter in module.parameters()) > self.shard_above


def shard(module: nn.Module, ranks: Ranks) -> None:
    """Leave this rank its shard of every parameter: along the first axis, members of each ModuleList as units of their own.

    Before it, every rank must hold the same values. A module without a forward of its own is never called, but its parts are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if type(module).forward is nn.Module.forward:
        for part in module.children():
            shard(part, ranks)
        return
    mesh = init_device_mesh(torch.device(ranks.device).type, (ranks.world,))
    for unit in (member for part in module.modules() if isinstance(part, nn.ModuleList) for member in part):
        fully_shard(unit, mesh=mesh)
    fully_shard(module, mesh=mesh)


def _is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether it is a DTensor. Before torch.distributed.tensor (half a second) is imported, there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, in the same memory."""
    return tensor.to_local() if _is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from all ranks, each of which must ask for it; one that is not sharded is returned as it is."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def gathered(tensors: Mapping[str, Tensor], *, first: bool) -> dict[str, Tensor]:
    """On the first rank whole tensors, sharded ones in the host's memory; elsewhere nothing. Every rank must ask.

    Beside its own shards a rank holds one whole tensor at a time on its device; the first rank's host holds all of them: at most
    8 bytes a parameter, for AdamW's two moments (SiT-XL: 5.4 GB).
    """
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if first:
            found[name] = value.cpu() if _is_sharded(tensor) else value
    return found


@torch.no_grad()
def refill(destinations: Mapping[str, Tensor], whole_tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copy whole tensors into destinations of these names, of which a rank may hold a shard only.

    Raises KeyError for names on one side only, RuntimeError for another shape. No communication: each rank reads the file.
    """
    missing = set(destinations)
    for name, tensor in whole_tensors:
        destination = destinations[name]
        if tensor.shape != destination.shape:
            raise RuntimeError(f"{name} is {tuple(tensor.shape)}, not {tuple(destination.shape)}")
        local(destination).copy_(local(like(tensor, destination)))
        missing.discard(name)
    if missing:
        raise KeyError(sorted(missing)[0])


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor that every rank has, on the device of `other` and sharded as it is."""
    tensor = tensor.to(other.device)
    if not _is_sharded(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    part = distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)
    return part.clone()  # a shard is a view of the whole, which it would keep in memory


class WholeCopy:
    """A module as it was before it was sharded: without values, except on the first rank within `filled`."""

    def __init__(self, module: nn.Module) -> None:
        """To be called before `module` is sharded."""
        self.source = module
        tensors = [*module.parameters(), *module.buffers()]
        self.module = copy.deepcopy(module, {id(tensor): _without_values(tensor) for tensor in tensors})

    @contextmanager
    def filled(self, ranks: Ranks) -> Iterator[None]:
        """Every rank must enter it. The first one's device then holds the whole module beside its shard."""
        state = {}
        for name, tensor in self.source.state_dict().items():
            value = whole(tensor)
            if ranks.first:
                state[name] = value
        if ranks.first:
            self.module.load_state_dict(state, assign=True)
        del state
        try:
            yield
        finally:      # not module.to("meta"), which would move frozen networks that others share
            empty = {name: _without_values(tensor) for name, tensor in self.module.state_dict().items()}
            self.module.load_state_dict(empty, assign=True)


def _without_values(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
