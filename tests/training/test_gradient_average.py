"""Gradients averaged during the backward pass on two gloo ranks equal those of the whole batch on one."""

import json

import pytest
import torch
import warm_process

from smtool.training.gradient_average import GradientAverage

WORKER = """
import json, sys, torch
from pathlib import Path
from torch import distributed as dist, nn
from smtool.training.distributed import joined
from smtool.training.gradient_average import GradientAverage

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.gain, self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64)), nn.Parameter(torch.ones(3))
        self.late = nn.Parameter(torch.zeros(2))

    def forward(self, x, step):
        y = self.last(self.first(x).tanh()) * self.gain.view(1, 2, 1, 1)
        return y + self.late.view(1, 2, 1, 1) if step else y

def gradients(net):
    return {name: None if p.grad is None else p.grad.double().flatten().tolist() for name, p in net.named_parameters()}

with joined("cpu") as ranks:
    torch.manual_seed(0)
    net = Net().to(memory_format=torch.channels_last)
    x = torch.randn(8, 2, 5, 5)
    found, expected, in_backward = [], [], []
    reduce = dist.all_reduce
    def noted(*args, **kwargs):
        in_backward.append(kwargs.get("async_op", False))
        return reduce(*args, **kwargs)
    dist.all_reduce = noted
    average = GradientAverage(net.parameters(), bucket_bytes=200)
    low, high = ranks.local_slice(8)
    for step in range(2):
        net.zero_grad()
        net(x[low : low + 2], step).square().mean().div(2).backward()      # a first micro-batch
        before = len(in_backward)
        with average.overlapped():
            net(x[low + 2 : high], step).square().mean().div(2).backward()
        in_backward.append(f"after {step}")
        found.append(gradients(net))
        layout = [p.grad.stride() == p.stride() for p in net.parameters() if p.grad is not None]
    average.close()
    for step in range(2):
        net.zero_grad()
        net(x, step).square().mean().backward()
        expected.append(gradients(net))
    Path(sys.argv[1], f"{ranks.rank}.json").write_text(json.dumps([found, expected, in_backward, layout]))
"""


@pytest.mark.slow
def test_gradients_are_those_of_the_whole_batch(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    ended = warm_process.run(script, tmp_path, ranks=2)
    assert ended.returncode == 0, ended.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    for found, expected in zip(*first[:2], strict=True):
        for name, value in expected.items():
            assert found[name] == (None if value is None else pytest.approx(value, rel=1e-5, abs=1e-8)), name
    calls, layouts = first[2:]
    second_step = calls[calls.index("after 0") + 1 : calls.index("after 1")]
    assert second_step.count(True) >= 3      # several buckets, during the backward pass, though one parameter has no gradient
    assert all(layouts)


def test_one_rank_has_no_hooks():
    layer = torch.nn.Linear(2, 2)
    average = GradientAverage(layer.parameters())
    with average.overlapped():
        layer(torch.ones(1, 2)).sum().backward()
    assert torch.equal(layer.bias.grad, torch.ones(2))
    assert not layer.bias._post_accumulate_grad_hooks
