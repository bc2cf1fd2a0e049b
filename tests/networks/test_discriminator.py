"""PatchGAN's size and smallest input, and its BatchNorm compared with nn.BatchNorm2d in one and in two processes."""

from pathlib import Path

import pytest
import torch
import warm_process
from torch import nn
from torch.testing import assert_close

from smtool.networks.batch_norm import GlobalBatchNorm2d
from smtool.networks.discriminator import PatchGAN

# One rank's share of a global batch of 5 (2 + 3 samples); its parameters' gradients are summed over the ranks.
RANK = """
import os, sys
import torch, torch.distributed as dist
from smtool.networks.discriminator import PatchGAN
rank, folder = int(os.environ["RANK"]), sys.argv[1]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
images, weights, state = torch.load(f"{folder}/input.pt")
share = slice(0, 2) if rank == 0 else slice(2, 5)
critic = PatchGAN(num_layers=2, channels=4).build().double()
critic.load_state_dict(state)
x = images[share].requires_grad_()
logits = critic(x)
(logits * weights[share]).sum().backward()
gradients = [p.grad for p in critic.parameters()]
for gradient in gradients:
    dist.all_reduce(gradient)
torch.save((logits.detach(), x.grad, gradients, critic.state_dict()), f"{folder}/rank{rank}.pt")
dist.barrier()
os._exit(0)  # gloo may abort while the interpreter shuts down
"""


def test_three_layers_have_the_published_parameter_count_and_logits():
    critic = PatchGAN().build()
    assert sum(parameter.numel() for parameter in critic.parameters()) == 2_765_633
    assert critic(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_the_smallest_input_gives_one_logit_and_one_pixel_less_is_refused(num_layers):
    config = PatchGAN(num_layers=num_layers, channels=4)
    critic = config.build()
    side = config.smallest_input
    assert critic(torch.randn(1, 3, side, side)).shape == (1, 1, 1, 1)
    assert critic.layers(torch.randn(1, 3, side, side + 2**num_layers)).shape == (1, 1, 1, 2)
    with pytest.raises(ValueError, match=f"{num_layers} layers, which needs {side} pixels"):
        critic(torch.randn(1, 3, side - 1, 2 * side))
    with pytest.raises(RuntimeError):
        critic.layers(torch.randn(2, 3, side - 1, 2 * side))  # the bound is tight: the convolutions do not fit


def test_three_layers_need_24_pixels():
    assert PatchGAN().smallest_input == 24


@pytest.mark.parametrize("init_std", [0.02, 0.2])
def test_initial_weights_have_the_given_standard_deviation(init_std):
    critic = PatchGAN(init_std=init_std).build()
    convolution, norm = critic.layers[5], critic.layers[6]
    assert convolution.weight.std().item() == pytest.approx(init_std, rel=0.02)  # 524,288 numbers: standard error 0.1 %
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert torch.equal(norm.bias, torch.zeros(256))


def test_one_process_is_plain_batch_norm():
    ours, plain = GlobalBatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    for _ in range(2):
        assert torch.equal(ours(x), plain(x))
    assert_states_close(ours.state_dict(), plain.state_dict())
    assert torch.equal(ours.eval()(x), plain.eval()(x))


@pytest.mark.slow
def test_two_ranks_of_unequal_share_equal_one_rank_with_the_whole_batch(tmp_path):
    critic = PatchGAN(num_layers=2, channels=4).build().double()
    images = torch.randn(5, 3, 16, 12, dtype=torch.float64) + 3.0
    weights = torch.randn(5, 1, 2, 1, dtype=torch.float64)
    torch.save((images, weights, critic.state_dict()), tmp_path / "input.pt")
    run_ranks(tmp_path)

    images.requires_grad_()
    logits = critic(images)
    (logits * weights).sum().backward()
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    # float64: ranks add in a different order
    close = {"rtol": 1e-9, "atol": 1e-11}
    assert_close(torch.cat([rank[0] for rank in ranks]), logits.detach(), **close)
    assert_close(torch.cat([rank[1] for rank in ranks]), images.grad, **close)
    for _, _, gradients, state in ranks:
        for found, parameter in zip(gradients, critic.parameters(), strict=True):
            assert_close(found, parameter.grad, **close)
        assert_states_close(state, critic.state_dict())


def run_ranks(folder: Path) -> None:
    (folder / "rank.py").write_text(RANK)
    done = warm_process.run(folder / "rank.py", folder, ranks=2)
    assert done.returncode == 0, done.stderr


def assert_states_close(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(found[name], expected[name], rtol=1e-9, atol=1e-11)
