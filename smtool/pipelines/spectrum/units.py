"""What intervals resample: images, or the few photographs whose crops they are.

Intervals are 95 %, jackknife with Student's t.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from smtool.pipelines.spectrum.numbers import numbers
from smtool.spectrum import Spectrum
from smtool.spectrum.jackknife import student_t_quantile


@dataclass(frozen=True)
class Units:
    """What intervals resample: groups[i] is the unit of image i; name: "image" or "photograph"."""

    name: Literal["image", "photograph"]
    groups: Sequence[str]

    def collapse(self, table: Tensor) -> Tensor:
        """Means over the images of each unit: (N, ...) -> (units, ...)."""
        order = {group: row for row, group in enumerate(dict.fromkeys(self.groups))}
        row = torch.tensor([order[group] for group in self.groups])
        total = table.new_zeros(len(order), *table.shape[1:]).index_add(0, row, table)
        return total / row.bincount().to(table).view(-1, *[1] * (table.ndim - 1))

    def first(self, count: int) -> "Units":
        """Those of the first images."""
        return Units(self.name, self.groups[:count])

    def __len__(self) -> int:
        return len(set(self.groups))


def collapsed(spectrum: Spectrum, units: Units) -> Spectrum:
    return replace(spectrum, power=units.collapse(spectrum.power))


def mean_and_half_width(table: Tensor) -> tuple[Tensor, Tensor]:
    """(units, K) -> the means over units, and the half-widths t(n - 1) s / sqrt(n) that the jackknife gives for a mean."""
    count = len(table)
    if count < 2:
        return table.mean(0), torch.full_like(table[0], math.inf)
    return table.mean(0), student_t_quantile(0.975, count - 1) * table.std(0) / math.sqrt(count)


def band(mean: Tensor, half_width: Tensor) -> dict[str, list[float | None]]:
    """Symmetric in the logarithm, in which it is drawn; no numbers for a single unit."""
    relative = torch.where(half_width.isfinite(), half_width / mean, math.nan)
    return {"low": numbers(mean * torch.exp(-relative)), "high": numbers(mean * torch.exp(relative))}
