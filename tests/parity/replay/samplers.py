"""The recorded sampling runs in smtool."""

from typing import Any

from given import numbers
from given import sampling_cases as cases
from given import transformer_cases as sizes
from given.summary import array

from smtool.diffusion import Flow, Sampler, sample
from smtool.networks.sit import SiT


def replayed(case: cases.Case, *, error: float = 0.0) -> dict[str, Any]:
    """Summary of the sampled latents. error: relative error of the guidance scale, which the comparison must detect."""
    config = SiT(size="custom", depth=sizes.DEPTH, width=sizes.WIDTH, heads=sizes.HEADS, patch=sizes.PATCH)
    network = config.build((4, cases.SIDE, cases.SIDE), cases.CLASSES).eval()
    learning = {f"network.{name}": value for name, value in network.named_parameters() if value.requires_grad}
    numbers.fill(learning, "transformer")
    process = Flow(path=case.path).build()
    sampler = Sampler(kind=case.kind, steps=cases.STEPS, cfg_scale=case.scale * (1 + error), cfg_interval=case.interval)
    model = sampler.model(process, network, labels=cases.labels(), null=cases.CLASSES)
    return array(sample(process, model, cases.noise(), sampler, step_noise=cases.step_noise))
