"""Every sampler with every process on the fake GPU: no mixed devices, and no waits."""

from types import SimpleNamespace

import pytest
import torch

from fake_cuda.allowed import added
from smtool import devices
from smtool.diffusion import DDPM, VPSDE, Flow, Sampler, sample
from smtool.diffusion.samplers import SAMPLERS
from smtool.inference.generate import sample_latents
from smtool.networks.sit import SiT
from smtool.networks.transformer import Prediction

pytestmark = pytest.mark.fake_cuda

PROCESSES = {
    "flow": Flow(),
    "flow of x": Flow(prediction="x", path="cosine"),
    "flow of eps": Flow(prediction="eps"),
    "ddpm": DDPM(),
    "vp-sde": VPSDE(),
    "vp-sde of x0": VPSDE(prediction="x0"),
}
CASES = [(kind, name) for kind, method in SAMPLERS.items() for name, one in PROCESSES.items() if one.kind in method.processes]
NULL = 3


def _network(x, time, labels):
    return Prediction(x * time[:, None, None, None] + (labels == NULL)[:, None, None, None])


def _draw(name: str, sampler: Sampler, observe=None):
    process, noise = PROCESSES[name].build(), torch.zeros(2, 4, 4, 4, device="cuda")
    model = sampler.model(process, _network, labels=torch.zeros(2, dtype=torch.int64, device="cuda"), null=NULL)
    return sample(process, model, noise, sampler, step_noise=lambda step: torch.zeros_like(noise), observe=observe)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_no_step_of_a_sampler_waits(card, kind, name):
    drawn = _draw(name, Sampler(kind=kind, steps=4, cfg_scale=2.0, cfg_interval=(0.2, 0.8)))
    assert (drawn.device.type, drawn.shape, drawn.dtype) == ("cuda", (2, 4, 4, 4), torch.float32)
    assert not added(card.waits, "step of a sampler")


def test_a_traced_sampler_shows_states_on_the_card(card):
    seen = []
    _draw("flow", Sampler(kind="heun", steps=3), observe=seen.append)
    assert [(step.state.device.type, step.denoised.device.type) for step in seen] == [("cuda", "cuda")] * 3


@pytest.mark.parametrize(("precision", "float64"), [("bf16", True), ("fp16", False), ("fp32", False)])
def test_samples_of_a_model_are_on_the_card_in_every_precision(card, precision, float64, monkeypatch):
    """On a device without float64 the sampler computes on the host, and makes no float64 on the device; else nothing waits."""
    monkeypatch.setattr(devices, "has_float64", lambda device: float64 or torch.device(device).type == "cpu")
    table = SiT(kind="sit", size="custom", depth=1, width=8, heads=2, patch=2)
    network = table.build((4, 4, 4), NULL).to("cuda").requires_grad_(False)
    model = SimpleNamespace(
        tables=SimpleNamespace(precision="fp32"), network=network, process=Flow().build(), latent_shape=(4, 4, 4),
        num_classes=NULL, guide=None,
    )
    sampler = Sampler(kind="euler-maruyama", steps=3, cfg_scale=2.0, precision=precision)
    labels = torch.zeros(2, dtype=torch.int64, device="cuda")
    for _ in range(2):      # the first fills the caches of constants
        card.waits.clear()
        drawn = sample_latents(model, range(2), seed=0, sampler=sampler, labels=labels, device="cuda")
    assert (drawn.device.type, drawn.shape, drawn.dtype) == ("cuda", (2, 4, 4, 4), torch.float32)
    assert not added(card.waits, "step of a sampler") if float64 else not card.doubles
