"""Sharding of large transformers over ranks (FSDP2): parameters, gradients, optimizer state and average.

Each block is gathered for its computation and released afterwards; the rest of the network (embeddings, last layer) stays
gathered from the forward to the backward pass. Files contain unsharded tensors: the first rank gathers and writes them.
"""

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeGuard

import torch
from pydantic import Field
from torch import Tensor, nn

from smtool.config import Config
from smtool.training.distributed import Ranks

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class Parallel(Config):
    """How a transformer is distributed over the ranks of torchrun."""

    shard_above: int = Field(
        1_000_000_000, ge=0,
        description="number of parameters above which ranks hold shards instead of copies; a copy takes 20 bytes per parameter "
        "(weights, gradients, two moments, average); no effect with one rank",
    )
    gather: Literal["precision", "fp32"] = Field(
        "precision",
        description="dtype in which the blocks of a sharded transformer are gathered and their gradients computed: that of "
        "`precision`, if it is bf16, or fp32; gradients are always summed over the ranks in fp32",
    )

    def gathered_in(self, precision: str) -> torch.dtype | None:
        """The argument of `shard` for a run of this precision."""
        return torch.bfloat16 if self.gather == "precision" and precision == "bf16" else None

    def applies(self, module: nn.Module, ranks: Ranks) -> bool:
        return ranks.world > 1 and sum(parameter.numel() for parameter in module.parameters()) > self.shard_above


def shard(module: nn.Module, ranks: Ranks, gathered_in: torch.dtype | None = None) -> None:
    """Replace every parameter by this rank's shard along the first axis; each member of a ModuleList is gathered as a unit.

    All ranks must hold the same values before the call. A module without its own forward is not wrapped, only its children are.
    gathered_in: dtype in which the members of ModuleLists are gathered, None for their own. Shards stay float32, and so does the
    rest of the network (embeddings of time and position, last layer).
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if type(module).forward is nn.Module.forward:
        for part in module.children():
            shard(part, ranks, gathered_in)
        return
    policy = MixedPrecisionPolicy(gathered_in, torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(torch.device(ranks.device).type, (ranks.world,))
    for unit in (member for part in module.modules() if isinstance(part, nn.ModuleList) for member in part):
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh)


def sum_in_next_backward(module: nn.Module, wanted: bool) -> None:
    """Whether the next backward passes through a sharded module sum its gradients over the ranks, as is the default.

    In a step of several micro-batches only the last one should, as with `no_sync` of DistributedDataParallel: until then each
    rank keeps its gradients of all parameters unsharded, 4 bytes per parameter, instead of sending them in every micro-batch.
    """
    from torch.distributed.fsdp import FSDPModule

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_requires_gradient_sync(wanted, recurse=False)


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is a DTensor. False if torch.distributed.tensor, whose import takes half a second, is not yet imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing its memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from all ranks; every rank must call it. A tensor that is not sharded is returned unchanged."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def gathered(tensors: Mapping[str, Tensor], *, first: bool) -> dict[str, Tensor]:
    """On the first rank, all tensors gathered, sharded ones in host memory; on other ranks {}. Every rank must call it.

    Each device holds one gathered tensor at a time beside its shards; the first rank's host holds all of them: at most 8 bytes
    per parameter, for AdamW's two moments (SiT-XL: 5.4 GB).
    """
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if first:
            found[name] = value.cpu() if is_sharded(tensor) else value
    return found


@torch.no_grad()
def refill(destinations: Mapping[str, Tensor], whole_tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copy unsharded tensors into the destinations of the same names, which may be sharded.

    Raises KeyError for a name on one side only, RuntimeError for a different shape. No communication: each rank reads the file.
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
    """An unsharded tensor, equal on all ranks, moved to the device of `other` and sharded like `other`."""
    tensor = tensor.to(other.device)
    if not is_sharded(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    part = distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)
    return part.clone()  # a shard is a view, which would keep the unsharded tensor in memory


class WholeCopy:
    """An unsharded copy of a sharded module: without values (on "meta") except within `filled`."""

    def __init__(self, module: nn.Module) -> None:
        """Must be called before `module` is sharded."""
        self.source = module
        tensors = [*module.parameters(), *module.buffers()]
        self.module = copy.deepcopy(module, {id(tensor): _without_values(tensor) for tensor in tensors})

    @contextmanager
    def filled(self, *, here: bool) -> Iterator[None]:
        """Within the block the copy has the module's values, on its device. Every rank must enter the block.

        here: whether this rank needs the values, 4 bytes per parameter beside its shards.
        """
        state = {}
        for name, tensor in self.source.state_dict().items():
            value = whole(tensor)
            if here:
                state[name] = value
        if here:
            self.module.load_state_dict(state, assign=True)
        del state
        try:
            yield
        finally:      # not module.to("meta"), which would also move shared frozen networks
            empty = {name: _without_values(tensor) for name, tensor in self.module.state_dict().items()}
            self.module.load_state_dict(empty, assign=True)


def _without_values(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
