"""The fake GPU itself: devices, waits, and its backward pass against PyTorch's."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smtool.devices import ReadLater, to_device
from smtool.spectrum import block_low_pass

pytestmark = pytest.mark.fake_cuda


def test_tensors_of_two_devices_do_not_mix(card):
    with pytest.raises(RuntimeError, match="cpu"):
        torch.ones(2, device="cuda") + torch.ones(2)
    assert (torch.ones(2, device="cuda") + torch.ones(())).device.type == "cuda"      # a scalar is no tensor of another device


def test_numbers_on_the_host_stay_real(card):
    assert torch.arange(4).sum().item() == 6
    assert not card.waits


@pytest.mark.parametrize(
    ("what", "read"),
    [
        ("item", lambda x: x.sum().item()),
        ("item", lambda x: bool((x > 0).all())),
        ("to host", lambda x: x.cpu()),
        ("to host", lambda x: torch.zeros(4).copy_(x)),
        ("from pageable memory", lambda x: x + torch.ones(4).to("cuda")),
        ("from pageable memory", lambda x: torch.ones(4).to("cuda", non_blocking=True)),
        ("from pageable memory", lambda x: torch.tensor([1.0], device="cuda")),
        ("from pageable memory", lambda x: x.new_tensor([1.0])),
        ("index by a mask", lambda x: x[x > 0]),
        ("index from the host", lambda x: x[torch.tensor([0, 2])]),
        ("nonzero", lambda x: x.nonzero()),
        ("synchronize", lambda x: torch.cuda.synchronize()),
        ("event", lambda x: ReadLater(x).value),
    ],
)
def test_what_makes_the_host_wait_is_counted(card, what, read):
    read(torch.ones(4, device="cuda"))
    assert {kind for kind, _ in card.waits} == {what}


@pytest.mark.parametrize(
    "work",
    [
        lambda x: to_device(torch.ones(4), "cuda") * x,
        lambda x: to_device(torch.ones(6), "cuda")[1:5] * x,
        lambda x: x * 2.0 + torch.full((4,), 3.0, device="cuda"),
        lambda x: x[torch.arange(2, device="cuda")],
        lambda x: torch.where(x > 0, x, -x).new_full((1,), 4),
    ],
)
def test_what_does_not_wait_is_not_counted(card, work):
    assert work(torch.ones(4, device="cuda")).device.type == "cuda"
    assert not card.waits


def test_a_wait_is_recorded_with_the_function_that_asked_for_it(card):
    image, rows = torch.ones(1, 1, 8, 8, device="cuda"), torch.ones(1, dtype=torch.int64, device="cuda")
    block_low_pass(image, rows)      # a first call computes the constant matrix on the host
    card.waits.clear()
    block_low_pass(image, rows)
    assert list(card.waits) == [("item", "spectrum/lowpass.py:_cutoffs")]


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, unused):
        return 2 * x, x + 1

    @staticmethod
    def backward(ctx, first, second):
        return 2 * first + second, None


def _loss(x, weight):
    hidden = F.conv2d(x, weight, padding=1)
    first, _ = _Doubled.apply(hidden, None)
    parts = first.chunk(2, 1)
    return (parts[0].relu() * parts[1]).square().mean() + (weight.t() if weight.ndim == 2 else weight).sum() * hidden.mean()


def test_the_backward_pass_in_python_equals_pytorchs():
    from fake_cuda.engine import gradients

    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 5, 5, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    expected = torch.autograd.grad(_loss(x, weight), (x, weight))
    loss = _loss(x, weight)
    found = gradients([loss], [x, weight])
    torch.testing.assert_close(found, list(expected), rtol=0, atol=0)
    torch.testing.assert_close(gradients([loss], [x]), [expected[0]], rtol=0, atol=0)      # not to what was not asked for
    assert gradients([loss], [torch.ones(1, requires_grad=True)]) == [None]


def test_gradients_on_the_card_have_the_shapes_of_their_parameters_and_add_up(card):
    network = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 1)).to("cuda")
    card.waits.clear()
    for _ in range(2):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            network(torch.randn(2, 3, device="cuda")).mean().backward()
        for parameter in network.parameters():
            assert (parameter.grad.shape, parameter.grad.dtype, parameter.grad.device) == (
                parameter.shape, torch.float32, parameter.device
            )
    assert not card.waits


def test_a_backward_function_that_returns_a_host_tensor_is_an_error(card):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return torch.ones(gradient.shape)

    with pytest.raises(RuntimeError, match="gave a gradient on cpu for a tensor on cuda:0"):
        Wrong.apply(torch.ones(2, device="cuda", requires_grad=True)).sum().backward()
