"""Bytes that a rank sends in a step: gradients averaged around a ring, and shards of parameters gathered block by block."""

from torch import nn

_FLOAT = 4      # bytes; parameters and gradients are float32


def all_reduce_bytes(size: float, ranks: int) -> float:
    """Sent by each rank when a buffer of `size` bytes is summed around a ring: 2 (N - 1) / N of it."""
    return 2 * (ranks - 1) / ranks * size


def shard_bytes(parameters: int, ranks: int, micro_batches: int = 1) -> float:
    """Sent by each rank for a network whose parameters are sharded (FSDP): in every micro-batch, parameters are gathered for the
    forward and for the backward pass, and in the last one gradients are summed and scattered; each moves (N - 1) / N of
    4 bytes per parameter."""
    return (2 * micro_batches + 1) * (ranks - 1) / ranks * _FLOAT * parameters


def largest_unit(network: nn.Module) -> int:
    """Parameters of the largest part that is gathered as a whole: a member of a ModuleList, or all that is in none."""
    blocks = [member for part in network.modules() if isinstance(part, nn.ModuleList) for member in part]
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    rest = sum(parameter.numel() for parameter in network.parameters() if id(parameter) not in inside)
    return max([rest, *(sum(parameter.numel() for parameter in block.parameters()) for block in blocks)])
