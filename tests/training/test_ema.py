import pytest
import torch
from torch import nn

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


def test_warmup_forgets_the_start():
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
def test_a_decay_that_never_or_always_moves_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        EMA(decay=decay)
