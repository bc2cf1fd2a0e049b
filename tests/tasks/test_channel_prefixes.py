"""Augmented training on channel prefixes: losses and gradients of transformers whose first and last layers are cut."""

from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from smtool.data.batches import LatentBatch
from smtool.diffusion import Flow
from smtool.errors import RecipeError
from smtool.networks.posterior import LatentStats
from smtool.networks.sit import SiT
from smtool.networks.uvit import UViT
from smtool.randomness import initializing, streams
from smtool.recipe import TrainDiT, load
from smtool.tasks.diffusion import PLAYER, ChannelPrefixes, DiffusionTask, Labels

CHANNELS, PATCH = 4, 2
STATS = LatentStats("scalar", torch.zeros(1), torch.full((1,), 2.0), count=1, data="d")


def network_of(kind: str, channels: int):
    sizes = {"size": "custom", "depth": 2, "width": 32, "heads": 2, "patch": PATCH}
    config = SiT(**sizes) if kind == "sit" else UViT(**sizes, final_conv=False)
    with initializing(0, kind):
        network = config.build((channels, 4, 6), 3).double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name != "pos_embed":
                parameter.add_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64), alpha=0.05)
    return network


def cut(network, kind: str, length: int):
    """(the network built for `length` channels, with tensors that are slices of the whole one's)."""
    first, last = ("x_embedder", "final_layer.linear") if kind == "sit" else ("patch_embed", "decoder_pred")
    state = dict(network.named_parameters())
    kept = [cell * CHANNELS + channel for cell in range(PATCH * PATCH) for channel in range(length)]
    state[f"{first}.proj.weight"] = state[f"{first}.proj.weight"][:, :length]
    for part in ("weight", "bias"):
        state[f"{last}.{part}"] = state[f"{last}.{part}"][kept]
    return network_of(kind, length), state


@pytest.mark.parametrize("kind", ["sit", "uvit"])
def test_loss_and_gradients_are_the_mean_over_cut_networks(kind):
    whole = network_of(kind, CHANNELS)
    task = DiffusionTask(whole, Flow().build(), STATS, labels=Labels(dropout=0.3), prefixes=ChannelPrefixes(lengths=(1, 3),
                         per_step=3), channel_weights=(1.0, 2.0, 0.5, 0.5))
    draw = torch.Generator().manual_seed(2)
    mean = torch.randn(3, CHANNELS, 4, 6, generator=draw, dtype=torch.float64)
    batch = LatentBatch(mean, torch.full_like(mean, -torch.inf), torch.tensor([0, 1, 2]), ("",) * 3)
    draws = streams(7, 1, PLAYER, batch=3)
    found = task.loss(PLAYER, batch, draws, 1)
    found.total.backward()
    gradients = {name: p.grad.clone() for name, p in whole.named_parameters() if p.grad is not None}
    whole.zero_grad()
    lengths = task._lengths(draws, CHANNELS)
    assert lengths[0] == CHANNELS and len(lengths) == 3 and set(lengths[1:]) <= {1, 3}
    labels = torch.where(draws.uniform("label dropout", (3,)) < 0.3, 3, batch.labels)
    losses, seen = [], set()
    for number, length in enumerate(lengths):
        name = f" {number}" if number else ""
        noise, t = draws.batch(f"noise{name}", mean.shape), draws.uniform(f"time{name}", (3,))
        seen.add(t.sum().item())
        at = t.view(-1, 1, 1, 1)
        x = (mean / 2)[:, :length]
        x_t = (1 - at) * x + at * noise[:, :length]
        network, state = cut(whole, kind, length)
        time = task.process.noised(mean, noise, t).network_time
        output = torch.func.functional_call(network, state, (x_t, time, labels)).output
        weights = torch.tensor([1.0, 2.0, 0.5, 0.5][:length]).view(1, -1, 1, 1)
        losses.append((weights * (output - (noise[:, :length] - x)) ** 2).mean())
    expected = sum(losses) / 3
    expected.backward()
    assert len(seen) == 3      # times of their own
    assert_close(found.total, expected, rtol=1e-6, atol=0, check_dtype=False)
    for name, parameter in whole.named_parameters():
        if parameter.grad is not None:
            assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6 * parameter.grad.abs().max().item(), msg=name)


def test_prefixes_are_uniform_and_without_the_table_nothing_changes():
    counts: Counter[int] = Counter()
    network = network_of("sit", CHANNELS)
    task = DiffusionTask(network, Flow().build(), STATS, labels=Labels(), prefixes=ChannelPrefixes(lengths=(1, 2, 4)))
    for step in range(600):
        counts.update(task._lengths(streams(0, step, PLAYER, batch=2), CHANNELS)[1:])
    assert all(abs(counts[length] - 200) < 60 for length in (1, 2, 4))      # sd 12
    assert DiffusionTask(network, Flow().build(), STATS, labels=None)._lengths(streams(0, 0, PLAYER, batch=2), 4) == [4]


def test_a_last_convolution_over_all_channels_is_refused():
    with pytest.raises(RecipeError, match=r"channel_prefix: needs an output whose channels can be cut[\s\S]*final_conv = false"):
        load("uvit", TrainDiT, ["channel_prefix={lengths=[1,4]}"])
    assert load("sit", TrainDiT, ["channel_prefix={lengths=[1,4]}"]).tables.channel_prefix.per_step == 2
    with pytest.raises(RecipeError, match=r"channel_prefix\.per_step"):
        load("sit", TrainDiT, ["channel_prefix={lengths=[1,4],per_step=1}"])
