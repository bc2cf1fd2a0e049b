"""Distances of many subsets of a pool of images to subsets of a reference: the same values as by smtool.metrics, but faster."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smtool.metrics.frechet import Gaussian
from smtool.metrics.mind import DIRECTIONS
from smtool.randomness import generator

FloatArray = NDArray[np.float32]
Distance = Callable[[Tensor, Tensor], Tensor]
"""Pool's features (P, D) and rows (S, N) of the subsets -> (S,) distances."""


def frechet_distances(reference: Tensor, chosen: Tensor) -> Distance:
    """Frechet distances. reference: (Q, D); chosen: (S, M), the rows that subset s is compared with."""
    fixed = [Gaussian.of(reference[rows]) for rows in chosen]

    def distances(pool: Tensor, subsets: Tensor) -> Tensor:
        return torch.stack([_frechet(Gaussian.of(pool[rows]), other) for rows, other in zip(subsets, fixed, strict=True)])

    return distances


def _frechet(a: Gaussian, b: Gaussian) -> Tensor:
    """As `Gaussian.distance`, with singular values from the eigenvalues of the smaller Gram matrix, which are found faster."""
    product = a.root.T @ b.root
    gram = product @ product.T if len(product) <= product.shape[1] else product.T @ product
    overlap = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum()
    return (a.mean - b.mean).square().sum() + a.root.square().sum() + b.root.square().sum() - 2 * overlap


def kernel_distances(reference: Tensor, chosen: Tensor) -> Distance:
    """Unbiased kernel distances, from one kernel matrix of whole sets: sums over a subset are products with its indicator."""
    theirs = _indicator(chosen, len(reference))
    other, known = _within(_kernel(reference, reference), theirs), dict[int, tuple[Tensor, Tensor]]()

    def distances(pool: Tensor, subsets: Tensor) -> Tensor:
        if id(pool) not in known:
            known[id(pool)] = (_kernel(pool, pool), _kernel(pool, reference))
        within, across = known[id(pool)]
        ours = _indicator(subsets, len(pool))
        between = ((ours @ across) * theirs).sum(1) / (subsets.shape[1] * chosen.shape[1])
        return _within(within, ours) + other - 2 * between

    return distances


def transport_distances(reference: Tensor, chosen: Tensor) -> Distance:
    """MIND. The whole sets are projected once, and subsets sorted by numpy in float32, which is ten times faster than torch.

    Of the reference, the first N of the chosen rows are used. Directions are the same for all subsets, as for all racers.
    """
    dim = reference.shape[1]
    draws = generator("judge study", "directions", dim)
    units = torch.nn.functional.normalize(torch.randn(DIRECTIONS, dim, generator=draws), dim=1)

    def projected(x: Tensor) -> FloatArray:
        return (x.float() @ units.T).numpy()

    theirs = projected(reference)

    def distances(pool: Tensor, subsets: Tensor) -> Tensor:
        ours, count = projected(pool), subsets.shape[1]
        found = []
        for rows, others in zip(subsets.numpy(), chosen[:, :count].numpy(), strict=True):
            shift = np.sort(ours[rows].T, axis=1) - np.sort(theirs[others].T, axis=1)
            found.append(3 * dim * float(np.square(shift).mean(dtype=np.float64)))
        return torch.tensor(found, dtype=torch.float64)

    return distances


METRICS: dict[str, Callable[[Tensor, Tensor], Distance]] = {
    "fd": frechet_distances,
    "kd": kernel_distances,
    "mind": transport_distances,
}


def _indicator(rows: Tensor, size: int) -> Tensor:
    """(S, size): 1 for the members of each subset."""
    return torch.zeros(len(rows), size, dtype=torch.float64).scatter_(1, rows, 1.0)


def _within(kernel: Tensor, members: Tensor) -> Tensor:
    """Mean kernel of the pairs of different members of each subset."""
    count = members.sum(1)
    return (((members @ kernel) * members).sum(1) - members @ kernel.diagonal()) / (count * (count - 1))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    inner = x.double() @ y.double().T / x.shape[1] + 1.0
    return inner * inner * inner
