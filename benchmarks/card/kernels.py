"""The Triton kernels beside the plain operations that they replace, at sizes of an SD-VAE: values, gradients, time."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from benchmarks.card.findings import Row
from benchmarks.card.timing import seconds_of
from smtool.features import lpips_head
from smtool.networks import norm_silu as norms

_NORMS = (("GroupNorm + SiLU", norms.norm_silu, True), ("GroupNorm", norms.norm_only, False))
_SIZES = ((4, 128, 256, 256), (4, 512, 32, 32), (2, 96, 20, 36))
"""Of images: the first and the last level of an f16 autoencoder with 256 px, and one that fills no block of a kernel."""
_TINY = ((2, 32, 8, 12),)
_DTYPES = (torch.bfloat16, torch.float32)
_EPS = {torch.bfloat16: 2.0**-7, torch.float32: 1e-4}
"""Largest accepted difference, relative to the largest value: two roundings of bfloat16, and sums in another order."""

Check = Callable[[], Row]


def checks(device: str, *, tiny: bool) -> Iterator[tuple[str, Check]]:
    """(name, check) of each kernel, dtype and size."""
    for shape in _TINY if tiny else _SIZES:
        for dtype in _DTYPES:
            where = f"{tuple(shape)} {str(dtype).removeprefix('torch.')}"

            def images(shape: Sequence[int] = shape, dtype: torch.dtype = dtype) -> Tensor:
                return _images(shape, dtype, device)

            for name, fused, silu in _NORMS:
                yield f"{name} {where}", lambda fused=fused, silu=silu, images=images: _by_triton(
                    norms._can_fuse(nn.GroupNorm(8, images().shape[1]), images()), norm_row(fused, silu, images())
                )
            yield f"head of LPIPS {where}", lambda images=images: _by_triton(
                lpips_head._suits(images(), images()), head_row(images())
            )


def _by_triton(used: bool, row: Row) -> Row:
    return row if used else {**row, "outcome": "failed", "reason": "PyTorch's functions ran"}


def norm_row(fused: Callable[[nn.GroupNorm, Tensor], Tensor], silu: bool, x: Tensor) -> Row:
    """A fused norm against PyTorch's functions in float32 on the same images."""
    norm = nn.GroupNorm(8, x.shape[1], eps=1e-6, device=x.device)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, x.shape[1]))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, x.shape[1]))

    def plain(images: Tensor) -> Tensor:
        y = norm(images)
        return nn.functional.silu(y) if silu else y

    leaves = [x.requires_grad_(), norm.weight, norm.bias]
    pull = torch.cos(torch.arange(x.numel(), device=x.device, dtype=torch.float32)).view_as(x)
    ours = _with_gradients(lambda: fused(norm, x), pull, leaves)
    wide = x.detach().float().requires_grad_()
    theirs = _with_gradients(lambda: plain(wide), pull, [wide, norm.weight, norm.bias])
    return _row(
        ours, theirs, x.dtype, lambda: _with_gradients(lambda: fused(norm, x), pull, leaves),
        lambda: _with_gradients(lambda: plain(x.float()), pull, leaves), x.device,
    )  # fmt: skip


def head_row(a: Tensor) -> Row:
    """The head of a layer of LPIPS against the plain formula in float32."""
    b = a.flip(0).contiguous(memory_format=torch.channels_last)
    weight = torch.linspace(0, 1, a.shape[1], device=a.device)
    pull = torch.linspace(-1.0, 1.0, len(a), device=a.device)

    def ours() -> list[Tensor]:
        return [lpips_head.distance(a, b, weight), lpips_head.gradient(pull, a, b, weight)]

    def plain(x: Tensor, y: Tensor) -> list[Tensor]:
        return [lpips_head._plain_distance(x, y, weight), lpips_head._plain_gradient(pull, x, y, weight)]

    return _row(ours(), plain(a.float(), b.float()), a.dtype, ours, lambda: plain(a, b), a.device)


def _images(shape: Sequence[int], dtype: torch.dtype, device: str) -> Tensor:
    drawn = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0)) + 0.5
    return drawn.to(device, dtype).contiguous(memory_format=torch.channels_last)


def _with_gradients(compute: Callable[[], Tensor], pull: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    y = compute()
    return [y.detach(), *torch.autograd.grad((y.float() * pull).sum(), leaves)]


def _row(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], dtype: torch.dtype, run: Callable[[], object],
    run_plain: Callable[[], object], device: torch.device,
) -> Row:
    errors = [
        float((one.float() - wanted.float()).abs().max() / wanted.float().abs().max())
        for one, wanted in zip(ours, theirs, strict=True)
    ]  # fmt: skip
    bound = _EPS[dtype]
    row: Row = {"difference": max(errors), "bound": bound}
    if not all(error <= bound for error in errors):
        return {**row, "outcome": "differs"}
    return {**row, "ms": 1e3 * seconds_of(run, device), "plain_ms": 1e3 * seconds_of(run_plain, device)}
