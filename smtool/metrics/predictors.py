"""Predictors of generation quality that need no generative model: iFID's interpolated neighbours, equivariance errors.

Latents are normalized (as the transformer sees them) unless stated otherwise, (N, C, h, w), and compared as flat vectors.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

NEIGHBOURS = 10
SCALES = (0.25, 0.5, 0.75)
_ROWS = 64
_PARALLEL = 1e-4      # radians: below this, as beyond pi minus this, sin is too small to divide by


def nearest_by_cosine(queries: Tensor, others: Tensor, count: int) -> Tensor:
    """Indices (N, count) of the others (M, ...) with the largest cosine to each query (N, ...), the nearest first."""
    if len(others) < count:
        raise ValueError(f"{count} neighbours are needed, but there are only {len(others)} latents")
    directions = F.normalize(others.flatten(1), dim=1)
    parts = (F.normalize(part.flatten(1), dim=1) @ directions.T for part in queries.split(_ROWS))
    return torch.cat([similarity.topk(count, dim=1).indices for similarity in parts])


def drawn_neighbours(queries: Tensor, others: Tensor, *, draws: Generator, count: int = NEIGHBOURS) -> Tensor:
    """Draw one of the `count` nearest others for each query, with probability softmax(-mean squared difference): (N,) indices."""
    nearest = nearest_by_cosine(queries, others, count)
    chosen = []
    for part, indices in zip(queries.split(_ROWS), nearest.split(_ROWS), strict=True):
        difference = (others[indices] - part[:, None]).flatten(2).square().mean(2)      # (B, count)
        pick = torch.multinomial(torch.softmax(-difference, 1).cpu(), 1, generator=draws).to(indices.device)
        chosen.append(indices.gather(1, pick)[:, 0])
    return torch.cat(chosen)


def halfway(latents: Tensor, others: Tensor) -> Tensor:
    """Spherical interpolation of each pair at 1/2: sin(a / 2) / sin(a) (z + z'), with a the angle between the flat vectors.

    Parallel or opposite vectors get their mean. For vectors of equal norm the result has the same norm; a mean would be shorter.
    """
    x, y = latents.flatten(1).double(), others.flatten(1).double()
    cosine = (F.normalize(x, dim=1) * F.normalize(y, dim=1)).sum(1).clamp(-1, 1)
    angle = torch.arccos(cosine)
    flat = (angle < _PARALLEL) | (angle > math.pi - _PARALLEL)
    weight = torch.where(flat, 0.5, torch.sin(angle / 2) / torch.where(flat, 1.0, torch.sin(angle)))
    return (weight[:, None] * (x + y)).view_as(latents).to(latents.dtype)


def interpolated(queries: Tensor, others: Tensor, *, draws: Generator, count: int = NEIGHBOURS) -> Tensor:
    """iFID's latents (arXiv 2603.05630; released-code.md#predictors): each query interpolated halfway to one of its neighbours.

    iFID is the Frechet distance of their decodings to the queries' own images; it is large if latents between two images decode
    to unrealistic images. No query may be among the others. The random draw makes iFID noisy at small N.
    """
    return halfway(queries, others[drawn_neighbours(queries, others, draws=draws, count=count)])


def scale_error(decode: Callable[[Tensor], Tensor], latents: Tensor, decoded: Tensor, *, scales: tuple[float, ...]) -> float:
    """Root mean square of D(T z) - T D(z) over bilinear resizes T by `scales` (released-code.md#scale-equivariance).

    latents: raw, (N, C, h, w); decoded: D(z), in [-1, 1], the unit of the result. Raises ValueError for scales that do not give a
    whole number of cells.
    """
    return _rms([decode(_resized(latents, s)) - _resized(decoded, s) for s in scales])


def equivariance_error(decode: Callable[[Tensor], Tensor], latents: Tensor, decoded: Tensor) -> float:
    """The same error over EQ-VAE's transforms: each of SCALES combined with each quarter turn (released-code.md#eq-vae)."""
    errors = []
    for scale in SCALES:
        small, target = _resized(latents, scale), _resized(decoded, scale)
        errors += [decode(_turned(small, turns)) - _turned(target, turns) for turns in (1, 2, 3)]
    return _rms(errors)


def _rms(errors: list[Tensor]) -> float:
    """Root mean square in which each transform has equal weight, whatever the size of its result."""
    return math.sqrt(sum(error.double().square().mean().item() for error in errors) / len(errors))


def _resized(x: Tensor, scale: float) -> Tensor:
    sides = [side * scale for side in x.shape[-2:]]
    if any(side % 1 or side < 1 for side in sides):
        raise ValueError(f"{scale:g} of {x.shape[-2]}x{x.shape[-1]} cells is not a whole number of cells")
    return F.interpolate(x, size=[int(side) for side in sides], mode="bilinear", align_corners=False)


def _turned(x: Tensor, turns: int) -> Tensor:
    return torch.rot90(x, turns, dims=(-2, -1))
