"""The head of LPIPS against the functions of the package `lpips`, and its gradient against automatic differentiation."""

import lpips
import torch
from torch.testing import assert_close

from smtool.features.lpips_head import head
from smtool.randomness import generator


def _features(*shape):
    return [torch.randn(shape, generator=generator("features", str(n)), dtype=torch.float64).relu() + 0.01 + n for n in range(2)]


def _by_package(a, b, weight):
    difference = (lpips.normalize_tensor(a) - lpips.normalize_tensor(b)) ** 2
    return lpips.spatial_average((difference * weight.view(1, -1, 1, 1)).sum(1, keepdim=True)).flatten()


def test_value_and_gradients_equal_those_of_the_package():
    """Tolerance of the gradients: eps / |x|, which is left out beside 1; |x| is at least 0.02."""
    a, b = (x.requires_grad_() for x in _features(3, 5, 4, 7))
    weight = torch.arange(5.0, dtype=torch.float64) / 7
    pull = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found, expected = head(a, b, weight), _by_package(a, b, weight)
    assert_close(found, expected, rtol=1e-12, atol=0)
    for one, wanted in zip(*(torch.autograd.grad((pull * value).sum(), (a, b)) for value in (found, expected)), strict=True):
        assert_close(one, wanted, rtol=2e-8, atol=1e-14)


def test_the_gradient_of_features_of_zeros_is_zero():
    """Where that of the package is not a number."""
    a, b = torch.zeros(1, 3, 1, 2, requires_grad=True), torch.ones(1, 3, 1, 2)
    head(a, b, torch.ones(3)).sum().backward()
    assert torch.equal(a.grad, torch.zeros_like(a))


def test_features_in_bf16_are_computed_with_in_float32():
    a, b = (x.to(torch.bfloat16).requires_grad_() for x in _features(2, 8, 3, 3))
    weight = torch.linspace(0, 1, 8)
    found = head(a, b, weight)
    assert_close(found, _by_package(a.float(), b.float(), weight), rtol=1e-5, atol=1e-7)
    (gradient,) = torch.autograd.grad(found.sum(), a)
    (wanted,) = torch.autograd.grad(_by_package(a.float(), b.float(), weight).sum(), a)
    assert gradient.dtype == torch.bfloat16
    assert_close(gradient.float(), wanted.float(), rtol=2**-8, atol=1e-7)
