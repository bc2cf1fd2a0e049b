"""The head of a layer of LPIPS: weighted squared distance of unit vectors, averaged over positions (Zhang et al. 2018, Eq. 1)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smtool.networks.operations import kernels_agree, operation, suits_triton

_EPS = 1e-10      # of the package `lpips`


def head(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean over positions of sum_c weight_c (a_c / |a| - b_c / |b|)^2, (B,) in float32 or wider.

    a, b: features (B, C, h, w) of any float dtype; weight: (C,), not trained. It stores a and b only, which their networks store
    anyway, and computes again in the backward pass. The gradient of a vector of zeros is 0. On a GPU it is one kernel each way.
    """
    return _Head.apply(a, b, weight)


def _suits(a: Tensor, b: Tensor) -> bool:
    return suits_triton(a, b) and kernels_agree("the heads of LPIPS", _agrees_with_pytorch, a)


def _agrees_with_pytorch(device: torch.device, dtype: torch.dtype) -> bool:
    """Compare the kernels with PyTorch's functions on small features, to twice the rounding of the dtype."""
    from smtool.features import lpips_head_kernels as kernels

    numbers = torch.arange(2 * 64 * 6 * 10, dtype=torch.float32, device=device).view(2, 64, 6, 10)
    a, b = ((1 + torch.sin(k * numbers)).to(dtype).contiguous(memory_format=torch.channels_last) for k in (1.0, 1.3))
    weight, pull = torch.linspace(0, 1, 64, device=device), torch.tensor([1.0, -0.5], device=device)
    found = kernels.distance(a, b, weight, _EPS), kernels.gradient(pull, a, b, weight, _EPS)
    for one, wanted in zip(found, (_plain_distance(a, b, weight), _plain_gradient(pull, a, b, weight)), strict=True):
        allowed = max(2 * torch.finfo(dtype).eps, 1e-4) * wanted.float().abs().max()
        if not bool((one - wanted).float().abs().max() <= allowed):
            return False
    return True


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, weight)
        found: Tensor = distance(a, b, weight)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b, weight = ctx.saved_tensors
        of_a = gradient(pull, a, b, weight) if ctx.needs_input_grad[0] else None
        of_b = gradient(pull, b, a, weight) if ctx.needs_input_grad[1] else None
        return of_a, of_b, None


def _distance(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    if _suits(a, b):
        from smtool.features import lpips_head_kernels

        return lpips_head_kernels.distance(a, b, weight, _EPS)
    return _plain_distance(a, b, weight)


def _plain_distance(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    difference = _unit(a)[0] - _unit(b)[0]
    return torch.einsum("bchw,c->bhw", difference.square(), weight).mean((1, 2))


def _gradient(pull: Tensor, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """At a; the norm's eps matters for |a| = 0 only."""
    if _suits(a, b):
        from smtool.features import lpips_head_kernels

        return lpips_head_kernels.gradient(pull, a, b, weight, _EPS)
    return _plain_gradient(pull, a, b, weight)


def _plain_gradient(pull: Tensor, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    (unit, norm), (other, _) = _unit(a), _unit(b)
    scale = 2 * pull / (a.shape[-2] * a.shape[-1])
    of_unit = (unit - other) * weight.view(1, -1, 1, 1) * scale.view(-1, 1, 1, 1)
    through = of_unit - unit * (unit * of_unit).sum(1, keepdim=True)
    return torch.empty_like(a).copy_(torch.where(norm > 2 * _EPS, through / norm, 0.0))


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """x / (|x| + eps) and |x| + eps, in float32 or wider."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True) + _EPS
    return x / norm, norm


distance = operation(
    "lpips_head(Tensor a, Tensor b, Tensor weight) -> Tensor",
    _distance,
    lambda a, b, weight: a.new_empty(len(a), dtype=torch.promote_types(a.dtype, torch.float32)),
)
gradient = operation(
    "lpips_head_gradient(Tensor pull, Tensor a, Tensor b, Tensor weight) -> Tensor",
    _gradient,
    lambda pull, a, b, weight: torch.empty_like(a),
)
