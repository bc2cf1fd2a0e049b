"""The head of a layer of LPIPS: weighted squared distance of unit vectors, averaged over positions (Zhang et al. 2018, Eq. 1)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_EPS = 1e-10      # of the package `lpips`


def head(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean over positions of sum_c weight_c (a_c / |a| - b_c / |b|)^2, (B,) in float32.

    a, b: features (B, C, h, w) of any float dtype, computed with in float32; weight: (C,), not trained. It stores a and b only,
    which their networks store anyway, and computes again in the backward pass. The gradient of a vector of zeros is 0.
    """
    return _Head.apply(a, b, weight)


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, weight)
        difference = _unit(a)[0] - _unit(b)[0]
        return torch.einsum("bchw,c->bhw", difference.square(), weight).mean((1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b, weight = ctx.saved_tensors
        (unit_a, norm_a), (unit_b, norm_b) = _unit(a), _unit(b)
        scale = 2 * gradient / (a.shape[-2] * a.shape[-1])
        pull = (unit_a - unit_b) * weight.view(1, -1, 1, 1) * scale.view(-1, 1, 1, 1)      # gradient at unit_a
        of_a = _through(pull, unit_a, norm_a).to(a.dtype) if ctx.needs_input_grad[0] else None
        of_b = _through(-pull, unit_b, norm_b).to(b.dtype) if ctx.needs_input_grad[1] else None
        return of_a, of_b, None


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """x / (|x| + eps) and |x| + eps, in float32 or wider."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True) + _EPS
    return x / norm, norm


def _through(gradient: Tensor, unit: Tensor, norm: Tensor) -> Tensor:
    """The gradient at x of a function of x / (|x| + eps), from that at this quotient; eps matters for |x| = 0 only."""
    return (gradient - unit * (unit * gradient).sum(1, keepdim=True)) / norm
