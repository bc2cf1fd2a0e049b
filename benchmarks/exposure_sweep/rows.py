"""Distances of sets of samples that began with equal noise, and their differences over the same bootstrap draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smtool.metrics.frechet import Gaussian
from smtool.randomness import generator

QUANTILE = 1.959964      # of the normal distribution, for 95 %
DRAWS = 200


@dataclass(frozen=True)
class Change:
    """A difference of two distances, and half the width of its 95 % interval over samples."""

    value: float
    error: float


@dataclass(frozen=True)
class Row:
    """One set of samples.

    gamma: input perturbation of the training; seed: of the training; scale: epsilon scale of the sampler; error: half the 95 %
    interval of the distance over samples. from_plain: change from scale 1 of the same run and steps; from_first: change from
    gamma 0 at scale 1 with equal process, steps and training seed, None if that is not run. power: mean square of the samples'
    normalized latents in bands of DCT frequency, from low to high, over that of latents of training images.
    """

    process: str
    gamma: float
    seed: int
    steps: int
    scale: float
    num_images: int
    distance: float
    error: float
    from_plain: Change
    from_first: Change | None
    power: tuple[float, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Row":
        """A row of the JSON file."""
        first = values["from_first"]
        changes = {"from_plain": Change(**values["from_plain"]), "from_first": None if first is None else Change(**first)}
        return cls(**{**values, **changes, "power": tuple(values["power"])})

    @property
    def key(self) -> tuple[str, float, int, int, float]:
        return self.process, self.gamma, self.seed, self.steps, self.scale


class Resampled:
    """The Frechet distance of features (N, D) to a reference, and those of DRAWS resamples: equal rows for equal N."""

    def __init__(self, features: Tensor, reference: Gaussian) -> None:
        draws = generator("exposure sweep", "bootstrap", len(features))
        rows = torch.randint(len(features), (DRAWS, len(features)), generator=draws)
        self.distance = Gaussian.of(features).distance(reference)
        self.draws = torch.tensor([Gaussian.of(features[chosen]).distance(reference) for chosen in rows], dtype=torch.float64)

    @property
    def error(self) -> float:
        return QUANTILE * float(self.draws.std())


def change(of: Resampled, base: Resampled) -> Change:
    """Distance of a set minus that of another one, `base`. Paired: each draw takes the same rows of both."""
    return Change(of.distance - base.distance, QUANTILE * float((of.draws - base.draws).std()))
