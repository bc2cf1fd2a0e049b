"""Training a part of a module."""

import torch
from torch import nn

from smtool.training.ema import EMA
from smtool.training.optimizer import AdamW
from smtool.training.selection import evaluating, hold_statistics, saved_bytes, train_only


class Halves(nn.Module):
    """Two halves with BatchNorm; `bare` has no parameters and follows the half that contains it."""

    def __init__(self):
        super().__init__()
        half = [nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False)) for _ in range(2)]
        self.first, self.second = half

    def forward(self, x):
        return self.second(self.first(x))


def _trained() -> tuple[Halves, dict[str, torch.Tensor]]:
    """One step of the second half alone, and the state before it."""
    torch.manual_seed(0)
    module = Halves()
    names = {name for name, _ in module.named_parameters() if name.startswith("second.")}
    train_only(module, names)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    optimizer = AdamW(lr=0.1, warmup=0).build(module.named_parameters(), "cpu")
    assert set(optimizer.parameters) == names
    module(torch.randn(8, 3)).square().sum().backward()
    optimizer.torch.step()
    return module, before


def test_gradients_updates_and_statistics_exist_for_the_trained_part_only():
    module, before = _trained()
    assert all((parameter.grad is None) == name.startswith("first.") for name, parameter in module.named_parameters())
    after = module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("second.") for name in changed)
    expected = {f"second.{number}.{name}" for number in (1, 2) for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert expected <= changed


def test_frozen_statistics_are_still_held_after_a_validation():
    module, _ = _trained()
    with evaluating(module):
        assert not module.second[1].training
    assert module.second[1].training and module.second[2].training
    assert not module.first[1].training and not module.first[2].training


def test_without_frozen_parameters_nothing_is_held():
    module = Halves()
    hold_statistics(module)
    assert all(inside.training for inside in module.modules())


def test_frozen_parameters_are_neither_averaged_nor_copied_nor_saved():
    module, _ = _trained()
    average = EMA(decay=0.5, warmup=False).build(module, share_frozen=True)
    assert average.module.first[0].weight is module.first[0].weight
    assert average.module.second[0].weight is not module.second[0].weight
    before = module.second[0].weight.detach().clone()
    with torch.no_grad():
        module.second[0].weight.add_(1)
    average.update(module, 1)
    torch.testing.assert_close(average.module.second[0].weight, before + 0.5)
    assert not any(name in average.state_dict() for name, _ in module.named_parameters() if name.startswith("first."))
    assert "first.1.running_mean" in average.state_dict()


def test_saved_bytes_are_gradient_moments_and_average_of_the_frozen_part():
    module, _ = _trained()
    frozen = 9 + 3 + 3 + 3      # weight and bias of the linear layer, and those of the first BatchNorm, 4 bytes each
    assert saved_bytes(module, averaged=False) == 4 * frozen * 3
    assert saved_bytes(module, averaged=True) == 4 * frozen * 4


def test_multipliers_scale_the_rates_of_the_named_parameters_only():
    """With AdamW's first step of size lr per weight, the change is the rate itself."""
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    before = [layer.weight.detach().clone() for layer in module]
    optimizer = AdamW(lr=1e-2, warmup=0, weight_decay=0, eps=1e-20).build(module.named_parameters(), "cpu", {"1.weight": 0.25})
    assert optimizer.set_rate(1) == 1e-2
    module(torch.randn(4, 2)).square().sum().backward()
    optimizer.torch.step()
    for layer, old, rate in zip(module, before, (1e-2, 2.5e-3), strict=True):
        torch.testing.assert_close((layer.weight - old).abs(), torch.full((2, 2), rate), rtol=1e-4, atol=0)
