import pytest
import torch
from torch import nn

from smtool.training.precision import MixedPrecision


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_are_taken_in_the_named_format_and_weights_stay_float32(precision, dtype):
    layer = nn.Linear(4, 4)
    with MixedPrecision(precision, "cpu").autocast():
        assert layer(torch.randn(2, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32


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
