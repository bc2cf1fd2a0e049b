"""The units that intervals resample (images or photographs), and the interval of a mean over units."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from smtool.spectrum.jackknife import student_t_quantile
from smtool.spectrum.psd import Spectrum


@dataclass(frozen=True)
class Units:
    """The units that intervals (95 %, jackknife with Student's t) resample: images, or the photographs that crops are taken from.

    name: the kind of unit. groups: groups[i] is the unit of image i. `len` is the number of units.
    """

    name: Literal["image", "photograph"]
    groups: Sequence[str]

    def collapse(self, table: Tensor) -> Tensor:
        """Means over the images of each unit: (N, ...) -> (units, ...)."""
        row = self.numbers()
        total = table.new_zeros(len(self), *table.shape[1:]).index_add(0, row, table)
        return total / row.bincount().to(table).view(-1, *[1] * (table.ndim - 1))

    def collapsed(self, spectrum: Spectrum) -> Spectrum:
        """The spectrum with one row for each unit."""
        return replace(spectrum, power=self.collapse(spectrum.power))

    def numbers(self) -> Tensor:
        """(N,): index of each image's unit; units are numbered in order of first appearance."""
        order = {group: row for row, group in enumerate(dict.fromkeys(self.groups))}
        return torch.tensor([order[group] for group in self.groups])

    def first(self, count: int) -> "Units":
        """The units of the first `count` images."""
        return Units(self.name, self.groups[:count])

    def __len__(self) -> int:
        return len(set(self.groups))


def mean_and_half_width(table: Tensor) -> tuple[Tensor, Tensor]:
    """Means over units, (K,), of a table (units, K), and half-widths t(n - 1) s / sqrt(n) of their 95 % intervals.

    The half-widths equal those of the jackknife; they are infinite for a single unit.
    """
    count = len(table)
    if count < 2:
        return table.mean(0), torch.full_like(table[0], math.inf)
    return table.mean(0), student_t_quantile(0.975, count - 1) * table.std(0) / math.sqrt(count)


def log_band(mean: Tensor, half_width: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of an interval that is symmetric on a logarithmic axis: mean exp(-+ half_width / mean); nan for a single unit."""
    relative = torch.where(half_width.isfinite(), half_width / mean, math.nan)
    return mean * torch.exp(-relative), mean * torch.exp(relative)


def averaged(spectrum: Spectrum) -> Spectrum:
    """The spectrum with the mean over its rows as the only row, for fits without an interval."""
    return replace(spectrum, power=spectrum.mean()[None])
