"""Speed of sampling: milliseconds per image of a whole sampling run of a transformer.

The yardstick is the lower limit of the cost: the same number of calls of the network alone, on the same batch.
"""

import time

import torch

from benchmarks import Row
from smtool.diffusion import Flow, Sampler, guided, sample
from smtool.networks.sit import SiT

BATCH, STEPS = 16, 20
SHAPE = (4, 16, 16)


def run() -> list[Row]:
    network = SiT(size="nano", patch=2).build(SHAPE, 10).eval()
    noise = torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BATCH) % 10
    rows = []
    for kind, scale in (("euler", 1.0), ("heun", 1.0), ("euler-maruyama", 1.0), ("dpm-solver++", 1.0), ("euler", 1.8)):
        sampler = Sampler(kind=kind, steps=STEPS, cfg_scale=scale)
        whole = bare = float("inf")
        for _ in range(3):  # interleaved, best of three
            whole = min(whole, _sampled(network, noise, labels, sampler))
            bare = min(bare, _called(network, noise, labels, sampler, scale))
        name = f"{kind}, {STEPS} steps" + (f", guidance {scale}" if scale > 1 else "")
        rows.append(Row(name, 1e3 * whole / BATCH, "ms", 1e3 * bare / BATCH, "the network's calls alone"))
    return rows


@torch.no_grad()
def _sampled(network: torch.nn.Module, noise: torch.Tensor, labels: torch.Tensor, sampler: Sampler) -> float:
    start = time.perf_counter()
    model = guided(network, labels, null=10, scale=sampler.cfg_scale, interval=(0.0, 1.0))
    sample(Flow().build(), model, noise, sampler, step_noise=lambda step: torch.randn_like(noise))
    return time.perf_counter() - start


@torch.no_grad()
def _called(network: torch.nn.Module, noise: torch.Tensor, labels: torch.Tensor, sampler: Sampler, scale: float) -> float:
    x, y = (torch.cat([noise, noise]), torch.cat([labels, labels])) if scale > 1 else (noise, labels)
    t = torch.full((len(x),), 0.5)
    start = time.perf_counter()
    for _ in range(sampler.model_calls):
        network(x, t, y)
    return time.perf_counter() - start
