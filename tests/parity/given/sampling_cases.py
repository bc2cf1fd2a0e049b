"""The recorded sampling runs: latents sampled by a small SiT from given noise."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from given import numbers

IMAGES, STEPS, SIDE = 2, 8, 8
CLASSES = 1000
"""In the released samplers class 1000 means no class."""


@dataclass(frozen=True)
class Case:
    """scale: guidance scale, 1 for no guidance. interval: times at which guidance is applied."""

    name: str
    kind: Literal["euler", "heun", "euler-maruyama"]
    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    path: Literal["linear", "cosine"] = "linear"


CASES = (
    Case("euler", "euler"),
    Case("euler-guided", "euler", 1.8),
    Case("euler-guided-interval", "euler", 1.8, (0.2, 0.7)),
    Case("heun", "heun"),
    Case("heun-guided", "heun", 1.8),
    Case("heun-guided-interval", "heun", 1.8, (0.2, 0.7)),
    Case("euler-maruyama", "euler-maruyama"),
    Case("euler-maruyama-guided", "euler-maruyama", 1.8),
    Case("euler-maruyama-guided-interval", "euler-maruyama", 1.8, (0.2, 0.7)),
    Case("euler-maruyama-cosine-path", "euler-maruyama", path="cosine"),
)


def noise() -> Tensor:
    return numbers.normal((IMAGES, 4, SIDE, SIDE), "start")


def step_noise(step: int) -> Tensor:
    return numbers.normal((IMAGES, 4, SIDE, SIDE), "step noise", step)


def labels() -> Tensor:
    return numbers.integers(CLASSES, (IMAGES,), "labels")


def data() -> Tensor:
    return numbers.normal((IMAGES, 4, SIDE, SIDE), "data")


def times() -> Tensor:
    return numbers.uniform((IMAGES,), "times")
