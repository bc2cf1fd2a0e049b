"""Records SiT's transformer, its loss and its SDE sampler: python -m recorder.sit CHECKOUT OUT.

Runs the released network at a small size, `transport.training_losses` and `Sampler.sample_sde` in the default form. Replaced are
weights, torch.rand, torch.randn_like and torch.randn (one call per step of the sampler).
"""

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import torch
from given import float64, numbers, recording
from given import sampling_cases as cases
from given import transformer_cases as sizes
from given.summary import array
from torch import Tensor, nn

from recorder import stand_ins
from recorder.checkouts import SIT


def main(checkout: Path, out: Path) -> None:
    stand_ins.stand_in("torchdiffeq")
    sys.path.insert(0, str(checkout))
    with float64.everywhere(), torch.no_grad():
        network = _network()
        transport = importlib.import_module("transport").create_transport()
        found = {"loss": _loss(transport, network), "latents": array(_sampled(transport, network))}
    command = "make parity REFERENCE=path: python -m recorder.sit"
    recording.write(out, {**SIT.source, "command": command, **found})


def _network() -> nn.Module:
    network = importlib.import_module("models").SiT(
        input_size=cases.SIDE,
        patch_size=sizes.PATCH,
        hidden_size=sizes.WIDTH,
        depth=sizes.DEPTH,
        num_heads=sizes.HEADS,
        num_classes=cases.CLASSES,
    )
    numbers.fill({name: value for name, value in network.named_parameters() if name != "pos_embed"}, "sit")
    return network.eval()


def _loss(transport: Any, network: nn.Module) -> list[float]:
    """Loss of each image at a given time and noise; in SiT the data is at t = 1."""
    torch.rand = lambda shape: cases.times()  # type: ignore[assignment]
    torch.randn_like = lambda like: cases.noise()  # type: ignore[assignment]
    return transport.training_losses(network, cases.data(), {"y": cases.labels()})["loss"].tolist()


def _sampled(transport: Any, network: nn.Module) -> Tensor:
    count = itertools.count()
    torch.randn = lambda size: cases.step_noise(next(count))  # type: ignore[assignment]
    sampler = importlib.import_module("transport").Sampler(transport)
    sample = sampler.sample_sde(diffusion_form="sigma", num_steps=cases.STEPS)  # the form used by sample_ddp.py
    return sample(cases.noise(), network, y=cases.labels())[-1]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
