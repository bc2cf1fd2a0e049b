import copy
import math

import pytest
import torch
from diffusers.optimization import get_constant_schedule_with_warmup
from torch import nn

from smtool.training.optimizer import AdamW, NamedOptimizer


def test_updates_equal_torch_adamw_with_clipping():
    torch.manual_seed(0)
    mine, theirs = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    theirs.load_state_dict(mine.state_dict())
    table = AdamW(lr=0.1, warmup=0, weight_decay=0.01, clip=0.5)
    ours = table.build(mine.named_parameters(), "cpu")
    oracle = torch.optim.AdamW(theirs.parameters(), lr=0.1, betas=(0.9, 0.999), weight_decay=0.01)
    for _ in range(5):
        x = torch.randn(4, 3, dtype=torch.float64)
        ours.torch.zero_grad()
        mine(x).square().sum().backward()
        ours.set_rate(100)
        ours.clip()
        ours.torch.step()
        ours.updates += 1
        oracle.zero_grad()
        theirs(x).square().sum().backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        oracle.step()
    torch.testing.assert_close(mine.weight, theirs.weight, rtol=1e-14, atol=1e-15)      # the order of its operations is another


def test_rate_rises_linearly_then_stays():
    table = AdamW(lr=1.0, warmup=4)
    assert [table.rate(update, 100) for update in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_a_warmup_from_zero_is_the_schedule_of_the_released_trainers(warmup):
    """diffusers' constant_with_warmup, whose first update has rate 0 and does not change the weights."""
    parameter = torch.nn.Parameter(torch.ones(2))
    theirs = torch.optim.SGD([parameter], lr=1.0)
    schedule = get_constant_schedule_with_warmup(theirs, num_warmup_steps=warmup)
    expected = []
    for _ in range(8):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    table = AdamW(lr=1.0, warmup=warmup, warmup_from="zero")
    assert [table.rate(update, 8) for update in range(8)] == expected
    ours = table.build([("w", parameter)], "cpu")
    ours.set_rate(8)
    parameter.grad = torch.ones(2)
    ours.torch.step()
    assert torch.equal(parameter, torch.ones(2)) == (warmup > 0)


def test_cosine_ends_at_zero_and_has_half_the_rate_in_the_middle():
    table = AdamW(lr=2.0, warmup=10, schedule="cosine")
    assert table.rate(60, 110) == pytest.approx(1.0)
    assert table.rate(110, 110) == pytest.approx(0.0, abs=1e-12)
    assert table.rate(35, 110) == pytest.approx(1 + math.cos(math.pi / 4))


def test_cosine_to_a_fraction_is_the_annealing_of_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.2)
    table = AdamW(lr=2.0, warmup=0, schedule="cosine", lr_end=0.1)
    for update in range(51):
        assert table.rate(update, 50) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_a_linear_decay_between_two_updates_is_that_of_torch_schedulers():
    """RAE's second stage in small: constant, then linear from 2 to 0.2, then constant (released-code.md#dit-dh)."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    parts = [torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=20),
             torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=30)]
    theirs = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[20])
    table = AdamW(lr=2.0, warmup=0, schedule="linear", lr_end=0.1, decay_start=20, decay_end=50)
    for update in range(70):
        assert table.rate(update, 69) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert table.rate(69, 69) == pytest.approx(0.2) and table.rate(35, 69) == pytest.approx(1.1)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_without_its_two_updates_a_decay_runs_from_the_warm_up_to_the_end(schedule):
    short = AdamW(lr=1.0, warmup=10, schedule=schedule)
    given = AdamW(lr=1.0, warmup=10, schedule=schedule, decay_start=10, decay_end=60)
    assert [short.rate(update, 60) for update in range(61)] == [given.rate(update, 99) for update in range(61)]
    assert given.rate(99, 99) == pytest.approx(0, abs=1e-12)


def test_state_survives_a_round_trip_through_named_tensors():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    first = AdamW(lr=0.1).build(module.named_parameters(), "cpu")
    module(torch.randn(2, 3)).sum().backward()
    first.torch.step()
    first.updates = 1
    state = {name: value.clone() for name, value in first.state_dict().items()}
    assert {name.split("|")[1] for name in state} == {"step", "exp_avg", "exp_avg_sq"}
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    other.load_state_dict(module.state_dict())
    second = AdamW(lr=0.1).build(other.named_parameters(), "cpu")
    second.load_state_dict(state.items(), 1)
    for model, optimizer in ((module, first), (other, second)):
        optimizer.torch.zero_grad()
        model(torch.ones(2, 3)).sum().backward()
        optimizer.torch.step()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("fused", [False, True])
def test_a_resumed_channels_last_network_continues_with_equal_updates(fused):
    """Files contain tensors in contiguous layout; fused kernels (on GPUs) pair elements by memory position, not by index."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    second = copy.deepcopy(first)
    images = torch.randn(2, 3, 8, 8)

    def update(module: nn.Conv2d, optimizer: NamedOptimizer) -> None:
        optimizer.torch.zero_grad()
        module(images).square().mean().backward()
        optimizer.torch.step()

    ours = NamedOptimizer(AdamW(lr=0.1), dict(first.named_parameters()), fused=fused)
    update(first, ours)
    state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in ours.state_dict().items()}
    second.load_state_dict(first.state_dict())
    theirs = NamedOptimizer(AdamW(lr=0.1), dict(second.named_parameters()), fused=fused)
    theirs.load_state_dict(state.items(), 1)
    for _ in range(3):
        update(first, ours)
        update(second, theirs)
    assert torch.equal(first.weight, second.weight)
    assert theirs.torch.state[second.weight]["exp_avg"].stride() == second.weight.stride()


@pytest.mark.parametrize("bad", [
    {"lr": -1.0}, {"warmup": -1}, {"schedule": "step"}, {"lr_end": 0.1}, {"lr_end": 1.0, "schedule": "cosine"}, {"betas": (0.9,)},
    {"betas": (0.9, 1.0)}, {"decay_start": 10}, {"decay_end": 10}, {"decay_start": 5, "warmup": 10, "schedule": "linear"},
    {"decay_end": 5, "decay_start": 10, "warmup": 0, "schedule": "cosine"},
])
def test_impossible_values_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        AdamW(**bad)
