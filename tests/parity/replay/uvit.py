"""The recorded steps of U-ViT in smtool: `DiffusionTask` in the training loop."""

from typing import Any

import torch
from given import numbers
from given import uvit_cases as cases
from given.summary import change, copied

from replay.loop import run
from smtool.data.batches import LatentBatch
from smtool.diffusion import DDPM
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.uvit import UViT
from smtool.tasks.diffusion import PLAYER, DiffusionTask, Labels
from smtool.training.ema import MovingAverage
from smtool.training.optimizer import AdamW


def replayed(case: cases.Case, *, error: float = 0.0) -> dict[str, Any]:
    """The steps of the case, computed by smtool. error: relative error of the latents' scale, which must be detected."""
    config = UViT(size="custom", depth=cases.DEPTH, width=cases.WIDTH, heads=cases.HEADS, patch=cases.PATCH)
    network = config.build((cases.CHANNELS, cases.SIDE, cases.SIDE), case.classes)
    numbers.fill(dict(network.named_parameters()), "transformer")
    initial = copied(dict(network.named_parameters()))
    stats = LatentStats("scalar", torch.zeros(1), torch.tensor([(1 + error) / cases.SCALE]), count=0, data="")
    task = DiffusionTask(network, DDPM().build(), stats, labels=Labels(dropout=0) if case.classes else None)
    average = MovingAverage(task.players[PLAYER], cases.EMA_DECAY, warmup=False)
    table = AdamW(
        lr=cases.LR, weight_decay=cases.WEIGHT_DECAY, betas=cases.BETAS, warmup=cases.WARMUP, warmup_from="zero", clip="off"
    )
    steps = list(
        run(
            task,
            {PLAYER: table},
            {PLAYER: network},
            lambda step: _batch(case, step),
            steps=cases.STEPS,
            batch=cases.IMAGES,
            averages={PLAYER: average},
        )
    )
    for step in steps:
        step["logged"] = {"loss": step.pop("values")["diffusion"]}
    return {"steps": steps, "average": change(initial, dict(average.module.get_submodule("network").named_parameters()))}


def _batch(case: cases.Case, step: int) -> LatentBatch:
    mean, logvar = cases.mean_and_logvar(step)
    posterior = Posterior.from_moments(torch.cat([mean, logvar], 1))
    labels = cases.labels(case, step) if case.classes else None
    return LatentBatch(posterior.mean, posterior.logvar, labels, tuple(map(str, range(cases.IMAGES))))
