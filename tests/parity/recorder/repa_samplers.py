"""Records REPA's samplers on its small SiT: python -m recorder.repa_samplers CHECKOUT OUT.

Replaced are torch.randn_like, call by call, and the weights.
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
from torch import nn

from recorder.checkouts import REPA
from recorder.repa import our_names


def main(checkout: Path, out: Path) -> None:
    sys.path.insert(0, str(checkout))
    samplers = importlib.import_module("samplers")
    with float64.everywhere():
        network = _network()
        latents = {case.name: array(_sampled(samplers, network, case)) for case in cases.CASES}
    command = "make parity REFERENCE=path: python -m recorder.repa_samplers"
    recording.write(out, {**REPA.source, "command": command, "latents": latents})


def _network() -> nn.Module:
    network = importlib.import_module("models.sit").SiT(
        input_size=cases.SIDE,
        depth=sizes.DEPTH,
        hidden_size=sizes.WIDTH,
        decoder_hidden_size=sizes.WIDTH,
        patch_size=sizes.PATCH,
        num_heads=sizes.HEADS,
        encoder_depth=sizes.TAP,
        num_classes=cases.CLASSES,
        z_dims=[sizes.FEATURES],
        projector_dim=sizes.HIDDEN,
        fused_attn=True,
        qk_norm=False,
    )
    numbers.fill(our_names(network), "transformer")
    return network.eval()


@torch.no_grad()
def _sampled(samplers: Any, network: nn.Module, case: cases.Case) -> torch.Tensor:
    count = itertools.count()
    torch.randn_like = lambda like: cases.step_noise(next(count))  # type: ignore[assignment]
    sampler = samplers.euler_maruyama_sampler if case.kind == "euler-maruyama" else samplers.euler_sampler
    low, high = case.interval
    return sampler(
        network,
        cases.noise(),
        cases.labels(),
        num_steps=cases.STEPS,
        heun=case.kind == "heun",
        cfg_scale=case.scale,
        guidance_low=low,
        guidance_high=high,
        path_type=case.path,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
