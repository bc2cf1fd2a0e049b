"""Uniformity of token directions: how evenly the unit token vectors of different images spread over the sphere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from smtool.spectrum.dct import full_precision, without_autocast
from smtool.spectrum.jackknife import student_t_quantile

TEMPERATURE = 2.0
MOST_TOKENS = 8192
_ROWS = 512


@dataclass(frozen=True)
class Uniformity:
    """value: log of the mean kernel, at most 0; half_width: of its 95 % interval over groups, infinite below three of them;
    num_tokens: tokens used, of all images together; channels: C, on which the smallest possible value depends."""

    value: float
    half_width: float
    num_tokens: int
    channels: int


def direction_uniformity(
    features: Tensor, *, draws: Generator, groups: Sequence[int] | Tensor | None = None, t: float = TEMPERATURE,
    most_tokens: int = MOST_TOKENS,
) -> Uniformity:  # fmt: skip
    """log of the mean of exp(-t |u - v|^2) over all pairs of unit tokens u, v of two different groups of images.

    features: (N, C, h, w), a token of C numbers at each position; for latents, normalized ones. groups: (N,) number of each
    image's group, such as the photograph that it is a crop of; None: every image is its own group. The value is 0 if all tokens
    have one direction; smaller means more evenly spread. Where there are more than `most_tokens` tokens, the same number of
    random positions of each image is taken, without repetition. The interval is a jackknife over groups. Raises ValueError for
    fewer than two groups, and for a token of length 0, which has no direction.
    Source: the uniformity of Wang and Isola (arXiv 2005.10242), with their t = 2. They take one vector per image; smtool takes
    all tokens, and leaves out pairs within an image, which measure its smoothness instead. Oracle: a double loop.
    """
    numbers = torch.arange(len(features)) if groups is None else torch.as_tensor(groups).unique(return_inverse=True)[1]
    total = int(numbers.max()) + 1 if len(numbers) else 0
    if total < 2:
        raise ValueError(f"uniformity needs pairs of tokens of different images, but all belong to {total} image")
    tokens = _chosen(features, most_tokens // len(features), draws)                         # (N, C, per image)
    lengths = tokens.norm(dim=1)
    if not bool((lengths > 0).all()):
        raise ValueError("a token has length 0, so it has no direction")
    units = functional.normalize(tokens, dim=1).transpose(1, 2).flatten(0, 1)               # (N * per image, C)
    per_image = tokens.shape[2]
    parts = units.split(per_image * max(1, _ROWS // per_image))
    by_image = torch.cat([_kernel_sums(rows, units, t, per_image) for rows in parts])
    group = numbers.to(units.device)
    sums = units.new_zeros(total, len(group)).index_add(0, group, by_image)
    sums = units.new_zeros(total, total).index_add(1, group, sums)
    counts = units.new_zeros(total).index_add(0, group, units.new_ones(len(group))) * per_image      # bincount waits on a GPU
    outer = torch.outer(counts, counts)
    sums, outer = sums.fill_diagonal_(0), outer.fill_diagonal_(0)
    value = math.log(float(sums.sum() / outer.sum()))
    return Uniformity(value, _half_width(sums, outer), len(units), features.shape[1])


def uniform_limit(channels: int, *, t: float = TEMPERATURE) -> float:
    """The value for independent directions that are uniform on the sphere of C dimensions, the smallest one for many tokens.

    exp(-2 t) times the hypergeometric series 0F1(C / 2; t^2) = sum over k of t^(2 k) / (k! (C / 2)_k). C = 1: log of the mean
    of 1 and exp(-4 t); C = 2: log(exp(-2 t) I0(2 t)); many channels: -2 t.
    """
    if channels < 1:
        raise ValueError(f"directions need at least 1 channel, but there are {channels}")
    series, term = 1.0, 1.0
    for k in range(200):
        term *= t * t / ((k + 1) * (channels / 2 + k))
        series += term
    return math.log(series) - 2 * t


def _chosen(features: Tensor, most: int, draws: Generator) -> Tensor:
    """All tokens (N, C, h * w), float64, or `most` of each image (at least 1) at random positions."""
    with without_autocast(features):
        tokens = full_precision(features).flatten(2)
        length, count = tokens.shape[2], max(1, most)
        if count < length:
            positions = torch.rand(len(tokens), length, generator=draws).argsort(1)[:, :count].to(tokens.device)
            tokens = tokens.gather(2, positions[:, None].expand(-1, tokens.shape[1], -1))
        return tokens.double()


def _kernel_sums(rows: Tensor, units: Tensor, t: float, per_image: int) -> Tensor:
    """Sums of exp(-t |u - v|^2) over the tokens of each pair of images: of `rows` with all of `units`."""
    kernel = (rows @ units.T).sub_(1).mul_(2 * t).clamp_(max=0).exp_()                      # |u - v|^2 = 2 - 2 <u, v>
    return kernel.view(len(rows), -1, per_image).sum(2).view(-1, per_image, kernel.shape[1] // per_image).sum(1)


def _half_width(sums: Tensor, counts: Tensor) -> float:
    """Half-width of the jackknife interval over groups, of the log of sums / counts, both (groups, groups) with zero diagonal."""
    number = len(sums)
    if number < 3:
        return math.inf
    left, pairs = sums.sum() - 2 * sums.sum(1), counts.sum() - 2 * counts.sum(1)            # without group i
    replicates = (left / pairs).log()
    variance = (number - 1) / number * (replicates - replicates.mean()).square().sum()
    return student_t_quantile(0.975, number - 1) * math.sqrt(float(variance))
