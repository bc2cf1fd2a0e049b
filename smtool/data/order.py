"""Which images a batch holds: a pure function of (seed, batch number), so that nothing has to be remembered to resume."""

import functools

import torch
from torch import Tensor

from smtool.randomness import generator, permutation


def batch_indices(length: int, *, seed: int, batch: int, index: int) -> list[int]:
    """The index-th batch of the endless order: random permutations of range(length), one per epoch, laid end to end.

    A batch may cross from one epoch into the next, and may be longer than the data. Costs one
    permutation per epoch, whatever the index.
    """
    if length < 1 or batch < 1 or index < 0:
        raise ValueError(f"length and batch must be positive and index not negative, but are {length}, {batch}, {index}")
    positions = range(index * batch, (index + 1) * batch)
    return [int(_epoch_order(length, seed, position // length)[position % length]) for position in positions]


def batch_flips(*, seed: int, batch: int, index: int) -> list[bool]:
    """Which samples of the index-th batch are mirrored, each with probability 1/2; decided by position in the global batch."""
    return (torch.rand(batch, generator=generator("flip", seed, index)) < 0.5).tolist()


@functools.lru_cache(maxsize=4)
def _epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    return permutation(length, "image order", seed, epoch)
