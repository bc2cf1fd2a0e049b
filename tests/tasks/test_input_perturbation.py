"""The loss and gradients of perturbed inputs against their formula, and their random streams."""

import math

import pytest
import torch

from smtool.data.batches import LatentBatch
from smtool.diffusion import DDPM, Flow
from smtool.networks.posterior import LatentStats
from smtool.networks.sit import SiT
from smtool.randomness import initializing, streams
from smtool.tasks.diffusion import PLAYER, ChannelPrefixes, DiffusionTask

GAMMA = 0.25
STATS = LatentStats("channel", torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.25]), count=10, data="d")
CONFIGS = {"flow": Flow(), "cosine": Flow(path="cosine"), "ddpm": DDPM()}


def _task(config, gamma, prefixes=None):
    process = config.model_copy(update={"input_perturbation": gamma}).build()
    with initializing(0, "test"):
        network = SiT(size="custom", depth=1, width=32, heads=2, patch=2).build((2, 8, 8), 0)
        for parameter in network.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return DiffusionTask(network, process, STATS, labels=None, prefixes=prefixes)


def _draws():
    return streams(7, 0, PLAYER, batch=4)


def _batch():
    rng = torch.Generator().manual_seed(2)
    mean, logvar = (torch.randn((4, 2, 8, 8), generator=rng) for _ in range(2))
    return LatentBatch(mean, logvar - 2, None, ("",) * 4)


def _example(name, x, noise, uniform):
    """(x_t of noisier inputs without their noise, factor of that noise, target, network time)."""
    if name == "ddpm":
        step = int(uniform * 1000) + 1
        first, last = 0.00085**0.5, 0.012**0.5
        abar = math.prod(1 - (first + i / 999 * (last - first)) ** 2 for i in range(step))
        return math.sqrt(abar) * x + math.sqrt(1 - abar) * noise, math.sqrt(1 - abar), noise, step
    if name == "flow":
        return (1 - uniform) * x + uniform * noise, uniform, noise - x, uniform
    alpha, sigma = math.cos(math.pi * uniform / 2), math.sin(math.pi * uniform / 2)
    return alpha * x + sigma * noise, sigma, math.pi / 2 * (alpha * noise - sigma * x), uniform


@pytest.mark.parametrize("gamma", [0.0, GAMMA])
@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradients_equal_the_formula(name, gamma):
    task, batch = _task(CONFIGS[name], gamma), _batch()
    loss = task.loss(PLAYER, batch, _draws(), 0)
    loss.total.backward()
    found = {key: parameter.grad.clone() for key, parameter in task.network.named_parameters() if parameter.grad is not None}
    task.network.zero_grad()

    draws, shape = _draws(), batch.mean.shape
    posterior = batch.mean + torch.exp(batch.logvar / 2) * draws.batch("posterior", shape)
    latents = (posterior - STATS.mean.view(-1, 1, 1)) / STATS.std.view(-1, 1, 1)
    noise, xi, uniform = draws.batch("noise", shape), draws.batch("input perturbation", shape), draws.uniform("time", (4,))
    examples = [_example(name, latents[i], noise[i], float(uniform[i])) for i in range(4)]
    inputs = torch.stack([x_t + factor * gamma * xi[i] for i, (x_t, factor, _, _) in enumerate(examples)])
    targets, times = torch.stack([target for _, _, target, _ in examples]), torch.tensor([time for *_, time in examples])
    expected = (task.network(inputs, times.float(), None).output - targets).square().mean()
    expected.backward()
    torch.testing.assert_close(loss.values["diffusion"], expected.detach(), rtol=1e-5, atol=1e-6)
    assert found
    for key, parameter in task.network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[key], parameter.grad, rtol=1e-3, atol=1e-5, msg=key)


def test_every_prefix_of_channels_has_a_perturbation_of_its_own():
    prefixes = ChannelPrefixes(lengths=(1,), per_step=2)
    names = []

    class Watched:
        device = "cpu"

        def __getattr__(self, kind):
            def drawn(name, *given):
                names.append(name)
                return getattr(_draws(), kind)(name, *given)

            return drawn

    _task(Flow(), GAMMA, prefixes).loss(PLAYER, _batch(), Watched(), 0)
    assert [name for name in names if "perturbation" in name] == ["input perturbation", "input perturbation 1"]
