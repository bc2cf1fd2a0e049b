# mypy: disable-error-code="no-untyped-def"
"""Triton kernels of a head of LPIPS on features in channels_last, forward and backward; all computation is in float32.

Each kernel reads the features once. A program works on CHUNK pixels of one image in tiles of TILE pixels, all channels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from smtool.networks.norm_silu_kernels import launch_sizes


@triton.jit
def _distance(a, b, weight, sums, pixels, EPS: tl.constexpr, C: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr,
              CHUNK: tl.constexpr):  # fmt: skip
    image, chunk = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    known = lane < C
    importance = tl.load(weight + lane, mask=known, other=0.0).to(tl.float32)
    a += image.to(tl.int64) * pixels * C
    b += image.to(tl.int64) * pixels * C
    total = tl.zeros([TILE], tl.float32)
    for start in range(0, CHUNK, TILE):
        pixel = chunk * CHUNK + start + tl.arange(0, TILE)
        inside = (pixel < pixels)[:, None] & known[None, :]
        place = pixel[:, None] * C + lane[None, :]
        one = tl.load(a + place, mask=inside, other=0.0).to(tl.float32)
        other = tl.load(b + place, mask=inside, other=0.0).to(tl.float32)
        one = one / (tl.sqrt(tl.sum(one * one, 1)) + EPS)[:, None]
        other = other / (tl.sqrt(tl.sum(other * other, 1)) + EPS)[:, None]
        total += tl.sum((one - other) * (one - other) * importance[None, :], 1)
    tl.store(sums + image * tl.num_programs(1) + chunk, tl.sum(total, 0))


@triton.jit
def _gradient(pull, a, b, weight, result, pixels, EPS: tl.constexpr, C: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr,
              CHUNK: tl.constexpr):  # fmt: skip
    image, chunk = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    known = lane < C
    scale = 2.0 * tl.load(pull + image) / pixels * tl.load(weight + lane, mask=known, other=0.0).to(tl.float32)
    a += image.to(tl.int64) * pixels * C
    b += image.to(tl.int64) * pixels * C
    result += image.to(tl.int64) * pixels * C
    for start in range(0, CHUNK, TILE):
        pixel = chunk * CHUNK + start + tl.arange(0, TILE)
        inside = (pixel < pixels)[:, None] & known[None, :]
        place = pixel[:, None] * C + lane[None, :]
        one = tl.load(a + place, mask=inside, other=0.0).to(tl.float32)
        other = tl.load(b + place, mask=inside, other=0.0).to(tl.float32)
        norm = tl.sqrt(tl.sum(one * one, 1)) + EPS
        one = one / norm[:, None]
        other = other / (tl.sqrt(tl.sum(other * other, 1)) + EPS)[:, None]
        of_unit = scale[None, :] * (one - other)
        inner = tl.sum(one * of_unit, 1)
        inverse = tl.where(norm > 2 * EPS, 1.0 / norm, 0.0)
        value = (of_unit - one * inner[:, None]) * inverse[:, None]
        tl.store(result + place, value.to(result.dtype.element_ty), mask=inside)


def distance(a: Tensor, b: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `lpips_head.head`."""
    grid, sizes = launch_sizes(a)
    sums = a.new_empty(grid, dtype=torch.float32)
    pixels = a.shape[2] * a.shape[3]
    _distance[grid](a, b, weight, sums, pixels, EPS=eps, **sizes)
    return sums.sum(1) / pixels


def gradient(pull: Tensor, a: Tensor, b: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The gradient at a, from that of the result, pull (B,)."""
    grid, sizes = launch_sizes(a)
    result = torch.empty_like(a)
    _gradient[grid](pull.contiguous(), a, b, weight, result, a.shape[2] * a.shape[3], EPS=eps, **sizes)
    return result
