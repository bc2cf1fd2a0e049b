import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from smtool.training.precision import MixedPrecision, autocast, weights_cast_once


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_are_taken_in_the_named_format_and_weights_stay_float32(precision, dtype):
    layer = nn.Linear(4, 4)
    with MixedPrecision(precision, "cpu").autocast():
        assert layer(torch.randn(2, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32


class _Casts(TorchDispatchMode):
    """Counts casts of tensors of one shape."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default and args[0].shape == self.shape
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("precision", "casts"), [("fp32", 0), ("bf16", 1), ("fp16", 1)])
def test_within_the_block_a_frozen_weight_is_cast_once_with_the_same_result(precision, casts):
    layer, x = nn.Linear(4, 6).requires_grad_(False), torch.randn(3, 4)
    with torch.no_grad():
        with autocast(precision, "cpu"):
            expected = layer(x)
        with _Casts(layer.weight.shape) as seen, weights_cast_once([layer], precision, "cpu"):
            for _ in range(3):
                with autocast(precision, "cpu"):
                    found = layer(x)
            assert x.matmul(layer.weight.mT).dtype == torch.float32      # outside of the network nothing is cast
    assert torch.equal(found, expected) and seen.count == casts
    assert not any(weight.requires_grad for weight in layer.parameters())


def test_casts_end_with_the_block_so_that_later_weights_count():
    layer, x = nn.Linear(2, 2, bias=False).requires_grad_(False), torch.ones(1, 2)
    for value in (1.0, 3.0):
        layer.weight.fill_(value)
        with torch.no_grad(), weights_cast_once([layer], "bf16", "cpu"), autocast("bf16", "cpu"):
            assert torch.equal(layer(x), torch.full((1, 2), 2 * value, dtype=torch.bfloat16))


def test_fp16_scales_the_loss_and_unscales_the_gradient():
    layer = nn.Linear(4, 1)
    mixed = MixedPrecision("fp16", "cpu")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    loss = layer(torch.ones(2, 4)).sum()
    mixed.backward(loss)
    assert layer.weight.grad.abs().min() > 1000        # 2 * the scale, 65536 at first
    mixed.unscale(optimizer)
    torch.testing.assert_close(layer.weight.grad, torch.full((1, 4), 2.0))


def test_an_overflow_skips_the_update_and_reduces_the_scale():
    layer = nn.Linear(4, 1)
    before = layer.weight.detach().clone()
    mixed = MixedPrecision("fp16", "cpu")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    mixed.backward(layer(torch.full((1, 4), float("inf"))).sum())
    mixed.unscale(optimizer)
    mixed.step(optimizer)
    assert torch.equal(layer.weight, before)
    other = MixedPrecision("fp16", "cpu")
    other.load_state_dict(mixed.state_dict())
    assert other.state_dict()["scale"] == 32768.0


def test_other_precisions_have_no_state():
    mixed = MixedPrecision("bf16", "cpu")
    assert mixed.state_dict() == {}
    mixed.load_state_dict({})
