"""GroupNorm followed by SiLU as one operation on a GPU.

PyTorch's autocast runs both in float32, and its GroupNorm copies images in channels_last to another layout. Here each pass reads
and writes tensors in their own dtype and layout and computes in float32, and the backward pass needs the input only: activations
between norm and SiLU are computed again. Kernels are written in Triton (norm_silu_kernels.py); without Triton, on other devices,
and for tensors that are not in channels_last, PyTorch's own functions run.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smtool.devices import stands_for_gpu
from smtool.networks.operations import has_triton, kernels_agree, operation, suits_triton


def norm_silu(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """silu(norm(x)) for x (B, C, H, W). Under autocast on a GPU the result has the dtype of x, not float32."""
    return _Fused.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps, True) if _can_fuse(norm, x) else F.silu(norm(x))


def norm_only(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """norm(x), computed as in `norm_silu`."""
    return _Fused.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps, False) if _can_fuse(norm, x) else norm(x)


def _can_fuse(norm: nn.GroupNorm, x: Tensor) -> bool:
    """Meta tensors stand for those on a GPU; their convolutions forget the layout. Modules with hooks are called."""
    if norm._forward_hooks:
        return False
    if suits_triton(x):
        return kernels_agree("GroupNorm with SiLU", _agrees_with_pytorch, x)
    return stands_for_gpu(x.device) and has_triton() and x.dtype.itemsize <= 4


def _agrees_with_pytorch(device: torch.device, dtype: torch.dtype) -> bool:
    """Compare values and gradients of a small image, to twice the rounding of the dtype."""
    numbers = torch.arange(2 * 64 * 12 * 20, dtype=torch.float32, device=device).view(2, 64, 12, 20)
    x = (1 + torch.sin(numbers)).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.linspace(low, 1.5, 64, device=device).requires_grad_() for low in (0.5, -1.0))
    pull = torch.cos(1.7 * numbers).to(dtype).float()
    for silu in (True, False):
        ours = _Fused.apply(x, weight, bias, 8, 1e-6, silu)
        theirs = F.group_norm(x.float(), 8, weight, bias, 1e-6)
        theirs = F.silu(theirs) if silu else theirs
        found, expected = (
            [y.float(), *torch.autograd.grad((y.float() * pull).sum(), (x, weight, bias))] for y in (ours, theirs)
        )
        for one, wanted in zip(found, expected, strict=True):
            allowed = max(2 * torch.finfo(dtype).eps, 1e-4) * wanted.abs().max()
            if not bool((one - wanted).abs().max() <= allowed):
                return False
    return True


class _Fused(torch.autograd.Function):
    """(x, weight, bias, groups, eps, silu) -> norm with or without SiLU. It stores x, and two numbers for each group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
        mean, rstd = moments(x, groups, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.silu = silu
        return apply(x, mean, rstd, weight, bias, silu)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_bias, of_weight = sums(gradient, x, mean, rstd, weight, bias, ctx.silu)
        of_x = None
        if ctx.needs_input_grad[0]:
            size = x[0].numel() // mean.shape[1]
            offset, slope = ((weight * one).unflatten(1, (mean.shape[1], -1)).sum(2) / size for one in (of_bias, of_weight))
            of_x = of_input(gradient, x, mean, rstd, weight, bias, offset, slope, ctx.silu)
        return of_x, of_weight.sum(0).to(weight.dtype), of_bias.sum(0).to(bias.dtype), None, None, None


def _unit(x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    return (_wide(x) - _groups(mean, x)) * _groups(rstd, x)


def _before_silu(gradient: Tensor, unit: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    """The gradient at the input of the SiLU."""
    if not silu:
        return _wide(gradient)
    value = unit * _channels(weight) + _channels(bias)
    gate = torch.sigmoid(value)
    return _wide(gradient) * gate * (1 + value * (1 - gate))


def _groups(values: Tensor, x: Tensor) -> Tensor:
    """(B, groups) -> (B, C, 1, 1)."""
    return values.repeat_interleave(x.shape[1] // values.shape[1], 1)[:, :, None, None]


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _wider(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _wide(x: Tensor) -> Tensor:
    return x.to(_wider(x))


def _like(values: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x).copy_(values)


def _moments(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    if x.is_cuda:
        from smtool.networks import norm_silu_kernels

        return norm_silu_kernels.moments(x, groups, eps)
    variance, mean = torch.var_mean(_wide(x).unflatten(1, (groups, -1)).flatten(2), 2, correction=0)
    return mean, torch.rsqrt(variance + eps)


def _apply(x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    if x.is_cuda:
        from smtool.networks import norm_silu_kernels

        return norm_silu_kernels.apply(x, mean, rstd, weight, bias, silu)
    value = _unit(x, mean, rstd) * _channels(weight) + _channels(bias)
    return _like(F.silu(value) if silu else value, x)


def _sums(
    gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    if x.is_cuda:
        from smtool.networks import norm_silu_kernels

        return norm_silu_kernels.sums(gradient, x, mean, rstd, weight, bias, silu)
    unit = _unit(x, mean, rstd)
    pull = _before_silu(gradient, unit, weight, bias, silu)
    return pull.sum((2, 3)), (pull * unit).sum((2, 3))


def _of_input(
    gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, slope: Tensor,
    silu: bool,
) -> Tensor:
    if x.is_cuda:
        from smtool.networks import norm_silu_kernels

        return norm_silu_kernels.of_input(gradient, x, mean, rstd, weight, bias, offset, slope, silu)
    unit = _unit(x, mean, rstd)
    pull = _before_silu(gradient, unit, weight, bias, silu) * _channels(weight)
    return _like((pull - _groups(offset, x) - unit * _groups(slope, x)) * _groups(rstd, x), x)


def _moments_without_values(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    mean, rstd = (x.new_empty((len(x), groups), dtype=_wider(x)) for _ in range(2))
    return mean, rstd


def _apply_without_values(x: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(x)


def _sums_without_values(gradient: Tensor, x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    of_bias, of_weight = (x.new_empty(x.shape[:2], dtype=_wider(x)) for _ in range(2))
    return of_bias, of_weight


def _of_input_without_values(gradient: Tensor, x: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(x)


_NORM = "Tensor mean, Tensor rstd, Tensor weight, Tensor bias"
moments = operation(
    "norm_silu_moments(Tensor x, int groups, float eps) -> (Tensor, Tensor)", _moments, _moments_without_values
)
"""Mean and 1 / sqrt(variance + eps) of every group of channels of x (B, C, H, W): (B, groups) each, float32 or wider."""
apply = operation(f"norm_silu_apply(Tensor x, {_NORM}, bool silu) -> Tensor", _apply, _apply_without_values)
"""silu(weight * (x - mean) * rstd + bias), or without silu, in the dtype and layout of x."""
sums = operation(
    f"norm_silu_sums(Tensor gradient, Tensor x, {_NORM}, bool silu) -> (Tensor, Tensor)", _sums, _sums_without_values
)
"""Gradients of bias and weight of each image, (B, C) each."""
of_input = operation(
    f"norm_silu_input(Tensor gradient, Tensor x, {_NORM}, Tensor offset, Tensor slope, bool silu) -> Tensor", _of_input,
    _of_input_without_values,
)
"""The gradient at x. offset, slope (B, groups): means over a group of weight * gradient, and of this times norm(x)."""
