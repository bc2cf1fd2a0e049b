"""The recorded loss and sampling of SiT in smtool, with weights read from a file that has SiT's own names."""

from pathlib import Path
from typing import Any

import torch
from given import numbers
from given import sampling_cases as cases
from given import transformer_cases as sizes
from given.summary import array
from safetensors.torch import save_file
from torch import Tensor, nn

from smtool.checkpoints.transformers import read_transformer
from smtool.diffusion import Flow, Sampler, sample
from smtool.networks.sit import SiT


def replayed(folder: Path) -> dict[str, Any]:
    """Loss of each image and summary of the sampled latents. folder: where the file of weights is written."""
    save_file(_released_weights(), folder / "sit.safetensors")
    network = read_transformer(folder / "sit.safetensors", heads=sizes.HEADS).build().eval()
    return {"loss": _loss(network), "latents": array(_sampled(network))}


def _released_weights() -> dict[str, Tensor]:
    """SiT's names are the same as smtool's; its last layer has twice the channels and ignores the second half."""
    config = SiT(size="custom", depth=sizes.DEPTH, width=sizes.WIDTH, heads=sizes.HEADS, patch=sizes.PATCH)
    tensors = config.build((4, cases.SIDE, cases.SIDE), cases.CLASSES).state_dict()
    for name in ("final_layer.linear.weight", "final_layer.linear.bias"):
        tensors[name] = torch.cat([tensors[name]] * 2)
    numbers.fill({name: value for name, value in tensors.items() if name != "pos_embed"}, "sit")
    return tensors


@torch.no_grad()
def _loss(network: nn.Module) -> list[float]:
    """SiT's time runs from noise to data, smtool's from data to noise."""
    noised = Flow().build().noised(cases.data(), cases.noise(), 1 - cases.times())
    output = network(noised.x_t, noised.network_time, cases.labels()).output
    return (output - noised.target).square().flatten(1).mean(1).tolist()


def _sampled(network: nn.Module) -> Tensor:
    process = Flow().build()
    sampler = Sampler(kind="euler-maruyama", steps=cases.STEPS)
    model = sampler.model(process, network, labels=cases.labels(), null=cases.CLASSES)
    return sample(process, model, cases.noise(), sampler, step_noise=cases.step_noise)
