import re

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from smtool.diffusion import DDPM, VPSDE, Flow, Sampler, sample
from smtool.diffusion.samplers import SAMPLERS
from smtool.networks.transformer import Prediction
from smtool.randomness import generator

KINDS = tuple(SAMPLERS)
PROCESSES = {"flow": Flow(), "ddpm": DDPM(), "vp-sde": VPSDE()}


def _process_of(kind):
    """The first process that a sampler works with."""
    return PROCESSES[SAMPLERS[kind].processes[0]].build()


def _model(x, network_time, step_time=None):
    return torch.tanh(x) - 0.2 * x.flip(-1)


def _noise(first, last, step):
    """Noise with a seed per sample, as in `smtool sample`."""
    return torch.stack([torch.randn(2, 4, 4, generator=generator("sample", i, step)) for i in range(first, last)])


def _samples(sampler, first, last):
    noise = _noise(first, last, "start")
    process = _process_of(sampler.kind)
    return sample(process, _model, noise, sampler, step_noise=lambda i: _noise(first, last, i))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_depend_on_its_batch(kind):
    sampler = Sampler(kind=kind, steps=6)
    whole = _samples(sampler, 0, 6)
    assert_close(torch.cat([_samples(sampler, 0, 4), _samples(sampler, 4, 6)]), whole, rtol=0, atol=1e-12)
    assert whole.dtype == torch.float32
    assert whole.std() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_float64_and_no_graph_is_kept(kind):
    seen = []
    weight = torch.ones((), requires_grad=True)

    def model(x, network_time, step_time=None):
        seen.append((x.dtype, network_time.dtype))
        return x * weight

    sampler, noise = Sampler(kind=kind, steps=3), _noise(0, 2, "start")
    out = sample(_process_of(kind), model, noise, sampler, step_noise=lambda i: _noise(0, 2, i))
    assert set(seen) == {(torch.float64, torch.float64)}
    assert not out.requires_grad


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_networks_alone_compute_in_the_samplers_precision(precision):
    """The same samples as from networks in autocast by hand, in a sampler that is in fp32; guidance is not in autocast."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 4).requires_grad_(False) for _ in range(2)]

    def by(layer):
        return lambda x, time, labels: Prediction(layer(x) * (1 + time[:, None, None, None]))

    def by_hand(layer):
        def network(x, time, labels):
            assert (x.dtype, time.dtype) == (torch.float32, torch.float32)
            with torch.autocast("cpu", dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision]):
                return by(layer)(x, time, labels)

        return network

    process, noise = Flow().build(), _noise(0, 2, "start")
    drawn = []
    for wrap, used in ((by, precision), (by_hand, "fp32"), (by, "auto")):
        sampler = Sampler(kind="heun", steps=3, cfg_scale=2.0, precision=used)
        network, guide = map(wrap, layers)
        model = sampler.model(process, network, labels=torch.zeros(2).long(), null=1, guide=guide)
        drawn.append(sample(process, model, noise, sampler, step_noise=lambda i: noise))
    assert torch.equal(drawn[0], drawn[1])
    assert 1e-4 < (drawn[0] - drawn[2]).abs().max() < 0.1      # "auto" is fp32 until a device is known


def test_one_step_of_every_sampler_gives_the_denoised_latents():
    noise = _noise(0, 2, "start")
    process = Flow().build()
    expected = process.denoised(_model(noise.double(), None), noise.double(), torch.ones((), dtype=torch.float64)).float()
    for kind in KINDS[:4]:
        assert_close(sample(process, _model, noise, Sampler(kind=kind, steps=1), step_noise=lambda i: noise), expected)


def _proportional(x, network_time, step_time=None):
    return x * network_time.view(-1, 1, 1, 1)


@pytest.mark.parametrize("config", [Flow(path="cosine", prediction="x", time="logit-normal"), DDPM(), VPSDE(prediction="x0")])
def test_everything_follows_the_device_of_its_latents(config):
    """Tensors on "meta" stand for CUDA: like these, they cannot be combined with CPU tensors, except scalars."""
    process = config.build()
    noise = torch.empty(2, 3, 4, 4, device="meta")
    example = process.noised(noise, noise, torch.empty(2, device="meta"))
    assert example.x_t.device == example.network_time.device == noise.device
    for kind in KINDS:
        if config.kind not in SAMPLERS[kind].processes:
            continue
        sampler = Sampler(kind=kind, steps=3)
        out = sample(process, _proportional, noise, sampler, step_noise=lambda i: noise)
        assert out.device == noise.device and out.shape == noise.shape


def test_model_calls_are_counted():
    for kind in KINDS:
        calls = []

        def model(x, network_time, step_time=None, calls=calls):
            calls.append(0)
            return x

        sampler = Sampler(kind=kind, steps=5)
        noise = _noise(0, 1, "start")
        sample(_process_of(kind), model, noise, sampler, step_noise=lambda i, noise=noise: noise)
        assert len(calls) == sampler.model_calls


@pytest.mark.parametrize("kind", KINDS)
def test_recipes_accept_every_sampler(kind):
    sampler = Sampler(kind=kind, steps=4)
    assert sampler.method is SAMPLERS[kind]
    times = sampler.times(_process_of(kind))
    assert (len(times), times[0], times[-1]) == (5, 1, 1e-4 if kind == "dpm-solver-fast" else 0)
    for name, process in PROCESSES.items():
        problem = dict(sampler.problems(process, 0)).get("kind")
        assert (problem is None) == (name in SAMPLERS[kind].processes)
        assert problem is None or f'"ddim" works with "{name}"' in problem
    with pytest.raises(ValueError, match=re.escape(f"'{kind}'")):
        Sampler(kind="other")


def test_problems_name_the_key_and_what_works():
    assert list(Sampler(kind="heun", cfg_scale=2).problems(Flow(), 10)) == []
    assert dict(Sampler(cfg_interval=(0.7, 0.2)).problems(Flow(), 10)).keys() == {"cfg_interval"}
    assert dict(Sampler(cfg_scale=1.5).problems(Flow(), 0)).keys() == {"cfg_scale"}
    found = dict(Sampler(kind="euler-maruyama", steps=1001).problems(DDPM(), 0))
    assert '"ddim" works' in found["kind"] and "at most 1000" in found["steps"]
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Sampler(steps=0)


@pytest.mark.parametrize("kind", ["ddim", "euler", "dpm-solver++"])
def test_sampling_may_stop_ahead_of_the_data(kind):
    """RAE's grid: 1 - linspace(0, 0.999, 50), shifted (released-code.md#dit-dh); one Gaussian's path is known there."""
    process = Flow(shift="dimension").build((768, 16, 16))
    sampler = Sampler(kind=kind, steps=49, stop_time=0.001)
    grid, s = 1 - np.linspace(0, 0.999, 50), np.sqrt(768 * 16 * 16 / 4096)
    times = sampler.times(process).numpy()
    np.testing.assert_allclose(times, s * grid / (1 + (s - 1) * grid), rtol=1e-12)

    def exact(x, t, step_time=None):
        """Of data N(0, 0.25): x_t / std(t) stays, std(t)^2 = (1 - t)^2 / 4 + t^2."""
        t = t.view(-1, 1, 1, 1)
        return (t - (1 - t) / 4) / ((1 - t) ** 2 / 4 + t**2) * x

    noise = _noise(0, 2, "start").double()
    found = sample(process, exact, noise, Sampler(kind=kind, steps=4000, stop_time=0.1), step_noise=None)
    end = float(process.retimed(torch.tensor(0.1, dtype=torch.float64)))
    assert_close(found, noise * ((1 - end) ** 2 / 4 + end**2) ** 0.5, rtol=5e-3, atol=0)


def test_samplers_without_an_even_grid_do_not_stop():
    for kind in ("heun", "euler-maruyama"):
        found = dict(Sampler(kind=kind, stop_time=0.1).problems(Flow(), 0))
        assert found == {"stop_time": f"must be 0 for {kind}, but is 0.1; these can stop: ddim, dpm-solver++, euler"}
    with pytest.raises(ValueError, match="less than or equal to 0"):
        Sampler(stop_time=1)


POSSIBLE = [
    (kind, config)
    for kind in KINDS
    for config in (Flow(), Flow(path="cosine", prediction="eps"), DDPM(), VPSDE(snr_scale=4))
    if not list(Sampler(kind=kind, steps=6).problems(config, 0))
]


@pytest.mark.parametrize(("kind", "config"), POSSIBLE)
def test_an_observed_sampler_gives_the_same_bits_and_reports_every_step_once(kind, config):
    process, sampler = config.build(), Sampler(kind=kind, steps=6)
    noise, steps = _noise(0, 3, "start"), []
    arguments = {"step_noise": lambda i: _noise(0, 3, i)}
    plain = sample(process, _model, noise, sampler, **arguments)
    assert torch.equal(sample(process, _model, noise, sampler, **arguments, observe=steps.append), plain)
    times = sampler.times(process)[:-1].tolist()
    starts = [times[0], times[3], times[5]] if kind == "dpm-solver-fast" else times      # orders 3, 2 and 1
    assert [step.t for step in steps] == starts
    assert torch.equal(steps[0].state, noise.double())
    for step in steps:
        t = torch.tensor(step.t, dtype=torch.float64)
        prediction = _model(step.state, None)
        alpha, sigma = process.alpha_sigma(t)
        assert_close(alpha * step.denoised + sigma * process.noise_of(prediction, step.state, t), step.state)      # x_t again
    if kind in ("ddim", "dpm-solver++"):      # these end with the denoised latents on any process
        assert_close(steps[-1].denoised.float(), plain)
