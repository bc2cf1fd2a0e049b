import pytest
import torch
from torch import nn

from smtool.features.frozen import Frozen
from smtool.training.ema import EMA


def test_average_follows_the_recursion_and_copies_buffers():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = EMA(decay=0.9, warmup=False).build(module)
    expected = module[0].weight.detach().clone()
    for count in range(1, 6):
        with torch.no_grad():
            module[0].weight.add_(1.0)
            module[1].running_mean.fill_(count)
        average.update(module, count)
        expected = 0.9 * expected + 0.1 * module[0].weight.detach()
    torch.testing.assert_close(average.module[0].weight, expected)
    assert (average.module[1].running_mean == 5).all()
    assert not average.module[0].weight.requires_grad


def test_warmup_forgets_the_initial_weights():
    module = nn.Linear(1, 1)
    average = EMA(decay=0.9999).build(module)
    with torch.no_grad():
        module.weight.fill_(10.0)
    for count in range(1, 60):
        average.update(module, count)
    assert abs(average.module.weight.item() - 10) < 0.01
    slow = EMA(decay=0.9999, warmup=False).build(nn.Linear(1, 1))
    slow.update(module, 1)
    assert abs(slow.module.weight.item() - 10) > 8


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
def test_a_decay_of_zero_or_one_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        EMA(decay=decay)


def test_a_frozen_network_is_shared_with_the_average():
    class Judged(nn.Module):
        def __init__(self):
            super().__init__()
            self.projector, self.teacher = nn.Linear(4, 4), Frozen(nn.Linear(4, 4))
            self.teacher.register_buffer("mean", torch.ones(1), persistent=False)

    module = Judged()
    weight = module.teacher.network.weight.clone()
    average = EMA(decay=0.5).build(module)
    assert average.module.teacher is module.teacher
    assert average.module.projector is not module.projector
    average.update(module, 1)
    assert torch.equal(module.teacher.network.weight, weight)
    assert set(average.state_dict()) == {"projector.weight", "projector.bias"}
    assert [name for name, _ in average.module.named_parameters()] == ["projector.weight", "projector.bias"]
