"""Which images a batch holds: a pure function of (seed, batch number), so that resuming needs no saved state."""

import functools

import torch
from torch import Tensor

from smtool.randomness import generator, permutation


def batch_indices(length: int, *, seed: int, batch: int, index: int) -> list[int]:
    """Indices of the index-th batch in an endless order: one random permutation of range(length) per epoch, concatenated.

    A batch may span two or more epochs and may be longer than the data. The cost is one permutation per epoch in the batch,
    independent of the index.
    """
    if length < 1 or batch < 1 or index < 0:
        raise ValueError(f"length and batch must be positive and index not negative, but are {length}, {batch}, {index}")
    positions = range(index * batch, (index + 1) * batch)
    return [int(_epoch_order(length, seed, position // length)[position % length]) for position in positions]


def batch_flips(*, seed: int, batch: int, index: int) -> list[bool]:
    """Per position in the global batch, whether the sample of the index-th batch is mirrored (probability 1/2)."""
    return (torch.rand(batch, generator=generator("flip", seed, index)) < 0.5).tolist()


@functools.lru_cache(maxsize=4)
def _epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    return permutation(length, "image order", seed, epoch)
