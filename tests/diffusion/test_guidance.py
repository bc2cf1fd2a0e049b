from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from smtool.diffusion import DDPM, Flow, Sampler, guided, sample
from smtool.diffusion.samplers import stochastic_times

NULL = 10


class Network(torch.nn.Module):
    """A network with a different prediction for every label, which records its inputs."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, t, labels):
        self.calls.append((x, t, labels))
        strength = torch.zeros(len(x)) if labels is None else labels.float() / 10
        return SimpleNamespace(output=torch.tanh(x + strength.view(-1, 1, 1, 1)) - t.view(-1, 1, 1, 1) / 2)


X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([3, 7])


def _predictions(network, t):
    time = torch.full((2,), t)
    return (network(X.float(), time, labels).output for labels in (LABELS, torch.tensor([NULL, NULL])))


def test_guidance_extrapolates_from_the_null_class_to_the_label():
    network = Network()
    with_label, without = _predictions(network, 0.5)
    network.calls.clear()
    found = guided(network, LABELS, null=NULL, scale=1.8, interval=(0, 1))(X, torch.full((2,), 0.5))
    assert_close(found.float(), -0.8 * without + 1.8 * with_label)
    assert found.dtype == torch.float64
    ((x, t, labels),) = network.calls
    assert x.dtype == t.dtype == torch.float32
    assert labels.tolist() == [3, 7, NULL, NULL]


def test_guidance_of_the_first_channels_leaves_the_others_conditional():
    with_label, without = _predictions(Network(), 0.5)
    found = guided(Network(), LABELS, null=NULL, scale=1.8, interval=(0, 1), channels=2)(X, torch.full((2,), 0.5)).float()
    assert_close(found[:, :2], (-0.8 * without + 1.8 * with_label)[:, :2])
    assert torch.equal(found[:, 2:], with_label[:, 2:])


@pytest.mark.parametrize(("t", "calls"), [(0.29, 2), (0.3, 4), (0.5, 4), (0.7, 4), (0.71, 2)])
def test_guidance_acts_only_inside_its_interval_ends_included(t, calls):
    network = Network()
    model = guided(network, LABELS, null=NULL, scale=3.0, interval=(0.3, 0.7))
    found = model(X, torch.full((2,), t, dtype=torch.float64))
    assert len(network.calls[0][0]) == calls
    if calls == 2:
        assert_close(found.float(), next(_predictions(network, t)))


def test_scale_1_computes_only_the_conditional_prediction():
    network = Network()
    found = guided(network, LABELS, null=NULL, scale=1.0, interval=(0, 1))(X, torch.full((2,), 0.5, dtype=torch.float64))
    ((x, t, labels),) = network.calls
    assert x.dtype == t.dtype == torch.float32
    assert labels.tolist() == [3, 7]
    assert_close(found.float(), next(_predictions(network, 0.5)))


def test_a_network_without_classes_is_not_guided():
    found = guided(Network(), None, null=0, scale=1.0, interval=(0, 1))(X, torch.full((2,), 0.5))
    assert found.shape == X.shape
    with pytest.raises(ValueError, match="needs labels, but this network is unconditional"):
        guided(Network(), None, null=0, scale=1.5, interval=(0, 1))


def test_the_recipes_interval_is_in_t_for_every_process():
    for config, unit in ((Flow(), 1), (DDPM(), 1000)):
        network = Network()
        model = Sampler(cfg_scale=2.0, cfg_interval=(0.1, 0.7)).model(config.build(), network, labels=LABELS, null=NULL)
        for t in (0.099, 0.1, 0.7, 0.701):
            model(X, torch.full((2,), t * unit, dtype=torch.float64))
        assert [len(x) for x, _, _ in network.calls] == [2, 4, 4, 2]


def test_guiding_the_prediction_is_guiding_the_drift():
    """REPA guides the drift d = v - w s / 2, s = (-(1 - t) v - x) / t; here with a network that is not linear.

    Source: released-code.md#euler-maruyama.
    """
    network, sampler = Network(), Sampler(kind="euler-maruyama", steps=12, cfg_scale=1.8, cfg_interval=(0.2, 0.8))
    noise = torch.randn(12, *X.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    process = Flow().build()
    model = sampler.model(process, network, labels=LABELS, null=NULL)
    found = sample(process, model, X, sampler, step_noise=lambda i: noise[i])

    times = stochastic_times(process, 12, 0.04).tolist()
    x = X
    for i in range(12):
        t, dt = times[i], times[i + 1] - times[i]

        def drift(labels, x=x, t=t):
            v = network(x.float(), torch.full((2,), t), labels).output.double()
            return v - 0.5 * 2 * t * (-(1 - t) * v - x) / t

        d = drift(LABELS)
        if 0.2 <= t <= 0.8:
            free = drift(torch.full((2,), NULL))
            d = free + 1.8 * (d - free)
        x = x + d * dt
        if i < 11:
            x = x + (2 * t) ** 0.5 * noise[i] * abs(dt) ** 0.5
    assert_close(found, x, rtol=1e-6, atol=1e-6)
