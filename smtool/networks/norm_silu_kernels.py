# mypy: disable-error-code="no-untyped-def"
"""Triton kernels of GroupNorm with SiLU on images in channels_last, forward and backward; all computation is in float32.

Each kernel reads its tensors once. A program works on CHUNK pixels of one image, all channels, in tiles of TILE pixels, and
leaves sums over its pixels where a reduction over the image is needed; PyTorch joins the sums of all programs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_ELEMENTS = 4096      # of a tile
_PROGRAMS = 1024      # wanted at least, so that every multiprocessor has several


@triton.jit
def _moments(x, mean, m2, pixels, C: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr):
    image, chunk = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    known = lane < C
    first = chunk * CHUNK
    x += image.to(tl.int64) * pixels * C
    shift = tl.load(x + first * C + lane, mask=known, other=0.0).to(tl.float32)      # against cancellation
    total = tl.zeros([TILE, LANES], tl.float32)
    squares = tl.zeros([TILE, LANES], tl.float32)
    for start in range(0, CHUNK, TILE):
        pixel = first + start + tl.arange(0, TILE)
        inside = (pixel < pixels)[:, None] & known[None, :]
        value = tl.load(x + pixel[:, None] * C + lane[None, :], mask=inside, other=0.0).to(tl.float32)
        value = tl.where(inside, value - shift[None, :], 0.0)
        total += value
        squares += value * value
    count = tl.minimum(pixels - first, CHUNK).to(tl.float32)
    sums = tl.sum(total, 0)
    place = (image * tl.num_programs(1) + chunk) * C + lane
    tl.store(mean + place, shift + sums / count, mask=known)
    tl.store(m2 + place, tl.sum(squares, 0) - sums * sums / count, mask=known)


@triton.jit
def _apply(
    x, mean, rstd, weight, bias, y, pixels,
    C: tl.constexpr, GROUPS: tl.constexpr, SILU: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
):
    image, chunk = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    known = lane < C
    group = image * GROUPS + lane // (C // GROUPS)
    centre = tl.load(mean + group, mask=known, other=0.0)
    scale = tl.load(rstd + group, mask=known, other=0.0)
    gamma = tl.load(weight + lane, mask=known, other=0.0).to(tl.float32)
    beta = tl.load(bias + lane, mask=known, other=0.0).to(tl.float32)
    x += image.to(tl.int64) * pixels * C
    y += image.to(tl.int64) * pixels * C
    for start in range(0, CHUNK, TILE):
        pixel = chunk * CHUNK + start + tl.arange(0, TILE)
        inside = (pixel < pixels)[:, None] & known[None, :]
        place = pixel[:, None] * C + lane[None, :]
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        value = (value - centre[None, :]) * scale[None, :] * gamma[None, :] + beta[None, :]
        if SILU:
            value = value * tl.sigmoid(value)
        tl.store(y + place, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _sums(
    gradient, x, mean, rstd, weight, bias, plain, scaled, pixels,
    C: tl.constexpr, GROUPS: tl.constexpr, SILU: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
):
    image, chunk = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    known = lane < C
    group = image * GROUPS + lane // (C // GROUPS)
    centre = tl.load(mean + group, mask=known, other=0.0)
    scale = tl.load(rstd + group, mask=known, other=0.0)
    gamma = tl.load(weight + lane, mask=known, other=0.0).to(tl.float32)
    beta = tl.load(bias + lane, mask=known, other=0.0).to(tl.float32)
    x += image.to(tl.int64) * pixels * C
    gradient += image.to(tl.int64) * pixels * C
    of_bias = tl.zeros([TILE, LANES], tl.float32)
    of_weight = tl.zeros([TILE, LANES], tl.float32)
    for start in range(0, CHUNK, TILE):
        pixel = chunk * CHUNK + start + tl.arange(0, TILE)
        inside = (pixel < pixels)[:, None] & known[None, :]
        place = pixel[:, None] * C + lane[None, :]
        unit = (tl.load(x + place, mask=inside, other=0.0).to(tl.float32) - centre[None, :]) * scale[None, :]
        pull = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)      # 0 outside
        if SILU:
            value = unit * gamma[None, :] + beta[None, :]
            gate = tl.sigmoid(value)
            pull *= gate * (1.0 + value * (1.0 - gate))
        of_bias += pull
        of_weight += pull * unit
    place = (image * tl.num_programs(1) + chunk) * C + lane
    tl.store(plain + place, tl.sum(of_bias, 0), mask=known)
    tl.store(scaled + place, tl.sum(of_weight, 0), mask=known)


@triton.jit
def _input(
    gradient, x, mean, rstd, weight, bias, offset, slope, result, pixels,
    C: tl.constexpr, GROUPS: tl.constexpr, SILU: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
):
    image, chunk = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    known = lane < C
    group = image * GROUPS + lane // (C // GROUPS)
    centre = tl.load(mean + group, mask=known, other=0.0)
    scale = tl.load(rstd + group, mask=known, other=0.0)
    of_mean = tl.load(offset + group, mask=known, other=0.0)
    of_rstd = tl.load(slope + group, mask=known, other=0.0)
    gamma = tl.load(weight + lane, mask=known, other=0.0).to(tl.float32)
    beta = tl.load(bias + lane, mask=known, other=0.0).to(tl.float32)
    x += image.to(tl.int64) * pixels * C
    gradient += image.to(tl.int64) * pixels * C
    result += image.to(tl.int64) * pixels * C
    for start in range(0, CHUNK, TILE):
        pixel = chunk * CHUNK + start + tl.arange(0, TILE)
        inside = (pixel < pixels)[:, None] & known[None, :]
        place = pixel[:, None] * C + lane[None, :]
        unit = (tl.load(x + place, mask=inside, other=0.0).to(tl.float32) - centre[None, :]) * scale[None, :]
        pull = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        if SILU:
            value = unit * gamma[None, :] + beta[None, :]
            gate = tl.sigmoid(value)
            pull *= gate * (1.0 + value * (1.0 - gate))
        pull = scale[None, :] * (pull * gamma[None, :] - of_mean[None, :] - unit * of_rstd[None, :])
        tl.store(result + place, pull.to(result.dtype.element_ty), mask=inside)


def moments(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) of every group of channels of x (B, C, H, W): (B, groups) each."""
    grid, sizes = launch_sizes(x)
    images, channels = x.shape[:2]
    mean, m2 = (x.new_empty((*grid, channels), dtype=torch.float32) for _ in range(2))
    pixels = x.shape[2] * x.shape[3]
    _moments[grid](x, mean, m2, pixels, **sizes)
    count = torch.full((grid[1], 1, 1), float(sizes["CHUNK"]), device=x.device)
    count[-1] = pixels - (grid[1] - 1) * sizes["CHUNK"]
    mean, m2 = (value.view(images, grid[1], groups, -1) for value in (mean, m2))      # (B, chunks, groups, C / groups)
    size = pixels * channels // groups
    whole = (mean * count).sum((1, 3), keepdim=True) / size
    variance = (m2 + count * (mean - whole).square()).sum((1, 3)) / size
    return whole.flatten(1), torch.rsqrt(variance + eps)


def apply(x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    """silu(weight * (x - mean) * rstd + bias), or without silu, in the dtype and layout of x."""
    grid, sizes = launch_sizes(x)
    y = torch.empty_like(x)
    _apply[grid](x, mean, rstd, weight, bias, y, x.shape[2] * x.shape[3], GROUPS=mean.shape[1], SILU=silu, **sizes)
    return y


def sums(
    gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of bias and weight of each image, (B, C) each."""
    grid, sizes = launch_sizes(x)
    plain, scaled = (x.new_empty((*grid, x.shape[1]), dtype=torch.float32) for _ in range(2))
    keys = {"GROUPS": mean.shape[1], "SILU": silu, **sizes}
    _sums[grid](gradient, x, mean, rstd, weight, bias, plain, scaled, x.shape[2] * x.shape[3], **keys)
    return plain.sum(1), scaled.sum(1)


def of_input(
    gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, slope: Tensor,
    silu: bool,
) -> Tensor:
    """The gradient at x. offset, slope (B, groups): means over a group of weight * gradient, and of this times norm(x)."""
    grid, sizes = launch_sizes(x)
    result = torch.empty_like(x)
    keys = {"GROUPS": mean.shape[1], "SILU": silu, **sizes}
    _input[grid](gradient, x, mean, rstd, weight, bias, offset, slope, result, x.shape[2] * x.shape[3], **keys)
    return result


def launch_sizes(x: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid (images, chunks), and the constants of the kernels."""
    images, channels, height, width = x.shape
    lanes = triton.next_power_of_2(channels)
    tile = max(1, _ELEMENTS // lanes)
    chunk = tile
    while chunk < 16 * tile and images * triton.cdiv(height * width, 2 * chunk) >= _PROGRAMS:
        chunk *= 2
    sizes = {"C": channels, "LANES": lanes, "TILE": tile, "CHUNK": chunk, "num_warps": 8}
    return (images, triton.cdiv(height * width, chunk)), sizes
