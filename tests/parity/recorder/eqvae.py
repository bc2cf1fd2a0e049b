"""Records EQ-VAE's training step: python -m recorder.eqvae CASE CHECKOUT OUT.

Runs the released `AutoencoderKL.training_step` and optimizer, on LDM's encoder and decoder as EQ-VAE releases them. Replaced are
random numbers (torch.randn for the posterior; random.random and random.choice by the values of `given.eqvae_cases`), initial
weights, Lightning's module (by a plain one) and the loss object, which needs another repository, taming-transformers: here it is
mean L1 and KL. The recording is about the transforms of images and latents.
"""

import importlib
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from given import eqvae_cases as cases
from given import float64, numbers, recording
from torch import Tensor, nn
from torch.nn import functional as F

from recorder import stand_ins, watch
from recorder.checkouts import EQVAE
from smtool.checkpoints.foreign.ldm import LDM


class Plain(nn.Module):
    """A Lightning module that logs nothing."""

    global_step = 0

    def log(self, *args: Any, **kwargs: Any) -> None:
        return None

    log_dict = log


class L1AndKL(nn.Module):
    """The loss object that is passed to the released module."""

    discriminator = nn.Linear(1, 1)

    logged: ClassVar[dict[str, float]] = {}

    def forward(self, inputs: Tensor, decodings: Tensor, posterior: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        distance, divergence = F.l1_loss(decodings, inputs), posterior.kl().mean()
        type(self).logged = {"l1": float(distance), "kl": float(divergence)}
        return distance + cases.KL_WEIGHT * divergence, {}


def main(name: str, checkout: Path, out: Path) -> None:
    stand_ins.stand_in("taming", "taming.modules", "taming.modules.vqvae", "taming.modules.vqvae.quantize")
    sys.modules["pytorch_lightning"] = SimpleNamespace(LightningModule=Plain)  # type: ignore[assignment]
    sys.path.insert(0, str(checkout / "train_eqvae"))
    module = importlib.import_module("ldm.models.autoencoder")
    with float64.everywhere():
        _train(module, name)
    command = f"make parity REFERENCE=path: python -m recorder.eqvae {name}"
    recording.write(out, {**EQVAE.source, "command": command, "steps": watch.steps})


def _train(module: Any, name: str) -> None:
    module.instantiate_from_config = lambda config: L1AndKL()
    torch.optim.Adam = lambda parameters, **keys: watch.WatchedAdamW(parameters, weight_decay=0, **keys)  # type: ignore[assignment, misc]
    count = itertools.count()
    torch.randn = lambda shape: numbers.normal(shape, "posterior", next(count))  # type: ignore[assignment]
    network = _network(module, anisotropic=name == "eq-vae-anisotropic")
    (optimizer, _), _ = network.configure_optimizers()
    for number, step in enumerate(cases.STEPS[name]):
        module.random = _script(step, network.anisotropic)
        images = numbers.signed_images((cases.IMAGES, 3, cases.SIDE, cases.SIDE), "images", number)
        optimizer.zero_grad()
        network.training_step({"image": images.permute(0, 2, 3, 1)}, number, 0).backward()
        optimizer.step()
        watch.steps[-1]["logged"] = L1AndKL.logged


def _network(module: Any, *, anisotropic: bool) -> Any:
    levels = len(cases.CHANNELS)
    layout = {
        "double_z": True,
        "z_channels": cases.LATENT_CHANNELS,
        "resolution": cases.SIDE,
        "in_channels": 3,
        "out_ch": 3,
        "ch": cases.CHANNELS[0],
        "ch_mult": [1] * levels,
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    network = module.AutoencoderKL(layout, {}, cases.LATENT_CHANNELS, anisotropic=anisotropic)
    parameters = {name: value for name, value in network.named_parameters() if not name.startswith("loss.")}
    names = LDM.our_names(parameters)
    ours = {names[name]: value for name, value in parameters.items()}
    numbers.fill(ours, "autoencoder")
    watch.watch("autoencoder", ours)
    network.learning_rate = cases.LR
    return network


def _script(step: cases.Step, anisotropic: bool) -> SimpleNamespace:
    """The module's random numbers: values below or above its two probabilities, then scales s / 32 and numbers of rotations."""
    lots = iter({"decode": (0.0,), "encode": (1.0, 0.0), "none": (1.0, 1.0)}[step.moment])
    scales = [cells / cases.LATENT_SIDE for cells in step.cells]
    chosen = iter([*(scales if anisotropic else scales[:1]), step.quarter_turns])

    def choice(options: list[Any]) -> Any:
        value = next(chosen)
        assert value in options
        return value

    return SimpleNamespace(random=lambda: next(lots), choice=choice)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
