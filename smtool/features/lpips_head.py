"""The head of a layer of LPIPS: weighted squared distance of unit vectors, averaged over positions (Zhang et al. 2018, Eq. 1)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smtool.networks.operations import operation, suits_triton

_EPS = 1e-10      # of the package `lpips`


def head(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean over positions of sum_c weight_c (a_c / |a| - b_c / |b|)^2, (B,) in float32 or wider.

    a, b: features (B, C, h, w) of any float dtype; weight: (C,), not trained. It stores a and b only, which their networks store
    anyway, and computes again in the backward pass. The gradient of a vector of zeros is 0. On a GPU it is one kernel each way.
    """
    return _Head.apply(a, b, weight)


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
    if suits_triton(a, b):
        from smtool.features import lpips_head_kernels

        return lpips_head_kernels.distance(a, b, weight, _EPS)
    difference = _unit(a)[0] - _unit(b)[0]
    return torch.einsum("bchw,c->bhw", difference.square(), weight).mean((1, 2))


def _gradient(pull: Tensor, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """At a; the norm's eps matters for |a| = 0 only."""
    if suits_triton(a, b):
        from smtool.features import lpips_head_kernels

        return lpips_head_kernels.gradient(pull, a, b, weight, _EPS)
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
