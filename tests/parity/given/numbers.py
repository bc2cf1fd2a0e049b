"""Weights, batches and noise, each generated from its name alone: no tensor is stored and the order of calls does not matter."""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def generator(*key: str | int) -> np.random.Generator:
    """numpy's default generator (PCG64), seeded by the SHA-256 digest of the key's parts joined by "/"."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def normal(shape: Sequence[int], *key: str | int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.from_numpy(generator(*key).standard_normal(tuple(shape)))


def uniform(shape: Sequence[int], *key: str | int) -> Tensor:
    """Uniform numbers in [0, 1), float64."""
    return torch.from_numpy(generator(*key).random(tuple(shape)))


def integers(high: int, shape: Sequence[int], *key: str | int) -> Tensor:
    """Uniform integers in [0, high), int64."""
    return torch.from_numpy(generator(*key).integers(high, size=tuple(shape)))


def signed_images(shape: Sequence[int], *key: str | int) -> Tensor:
    """Images in [-1, 1], float64: a random plane wave in each channel plus noise, so that spectra fall with frequency."""
    count, channels, height, width = shape
    phase, down, right = (uniform((count, channels, 1, 1), *key, name) * 2 * math.pi for name in ("phase", "down", "right"))
    rows = torch.arange(height, dtype=torch.float64).view(1, 1, -1, 1) / height
    columns = torch.arange(width, dtype=torch.float64).view(1, 1, 1, -1) / width
    wave = torch.cos(phase + down * rows + right * columns)
    return (0.6 * wave + 0.15 * normal(shape, *key, "noise")).clamp(-1, 1)


def byte_images(shape: Sequence[int], *key: str | int) -> Tensor:
    """The same kind of images as uint8."""
    return ((signed_images(shape, *key) + 1) * 127.5).round().to(torch.uint8)


def weight(name: str, shape: Sequence[int], *key: str | int) -> Tensor:
    """A parameter of this name, float64: matrices and kernels ~ N(0, 1 / fan-in), gains ~ N(1, 0.01), biases ~ N(0, 0.01)."""
    values = normal(shape, *key, name)
    if len(shape) > 1:
        return values / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


@torch.no_grad()
def fill(parameters: Mapping[str, Tensor], *key: str | int, gain: float = 1.0) -> None:
    """Set parameters to the values generated from their names (smtool's names). gain multiplies matrices and kernels."""
    for name, parameter in parameters.items():
        values = weight(name, parameter.shape, *key)
        parameter.copy_(values * gain if parameter.ndim > 1 else values)
