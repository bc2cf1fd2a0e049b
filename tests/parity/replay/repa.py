"""The recorded steps of REPA and iREPA in smtool: `DiffusionTask` in the training loop."""

from typing import Any

import torch
from given import numbers
from given import transformer_cases as cases
from given.summary import change, copied
from torch import Tensor, nn

from replay.loop import run
from smtool.data.batches import LatentBatch
from smtool.diffusion import Alignment, Flow, IRepa, Repa, WeightedAlignment
from smtool.features.teachers import Teacher
from smtool.networks.posterior import LatentStats
from smtool.networks.sit import SiT
from smtool.tasks.diffusion import PLAYER, DiffusionTask, Labels
from smtool.training.ema import MovingAverage
from smtool.training.optimizer import AdamW

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LATENT_SHAPE = (cases.CHANNELS, cases.SIDE, cases.SIDE)


def replayed(case: cases.Case, *, error: dict[str, float] | None = None) -> dict[str, Any]:
    """The steps of the case, computed by smtool. error: by term, a relative error that the comparison must detect."""
    task = _task(case, 1 + (error or {}).get("alignment", 0.0))
    players = dict(task.players)
    learning = {name: value for name, value in players[PLAYER].named_parameters() if value.requires_grad}
    numbers.fill(learning, "transformer")
    initial = copied(learning)
    average = MovingAverage(players[PLAYER], cases.EMA_DECAY * (1 + (error or {}).get("ema", 0.0)), warmup=False)
    steps = list(
        run(
            task,
            {PLAYER: AdamW(lr=cases.LR, weight_decay=0, warmup=0)},
            players,
            _batch,
            steps=cases.STEPS,
            batch=cases.IMAGES,
            averages={PLAYER: average},
        )
    )
    for step in steps:
        values = step.pop("values")
        step["logged"] = {"diffusion": values["diffusion"], "alignment": values["alignment"]}
    averaged = {name: value for name, value in average.module.named_parameters() if name in initial}
    return {"steps": steps, "average": change(initial, averaged)}


def comparable(case: cases.Case, recording: dict[str, Any]) -> dict[str, Any]:
    """The part of a recording that smtool computes, with smtool's names."""
    steps = []
    for step in recording["steps"]:
        logged = step["logged"]
        diffusion = logged["denoising_loss" if case.alignment == "irepa" else "loss"]
        alignment = logged["cosine" if case.alignment == "irepa" else "proj_loss"]
        steps.append({**step, "logged": {"diffusion": diffusion, "alignment": alignment}})
    return {"steps": steps, "average": recording["average"]}


def transformer(num_classes: int) -> nn.Module:
    config = SiT(size="custom", depth=cases.DEPTH, width=cases.WIDTH, heads=cases.HEADS, patch=cases.PATCH)
    return config.build(LATENT_SHAPE, num_classes)


def _task(case: cases.Case, factor: float) -> DiffusionTask:
    network = transformer(cases.CLASSES)
    teacher = _teacher()
    table = (IRepa if case.alignment == "irepa" else Repa)(teacher="given", **_own_keys(case))
    alignment: Alignment = table.build(cases.WIDTH, network.token_grid, teacher_dim=teacher.dim, teacher_grid=teacher.grid)
    times = {"uniform": "uniform", "lognormal": "logit-normal"}[case.weighting]
    return DiffusionTask(
        network,
        Flow(path=case.path, time=times).build(),
        _stats(case),
        labels=Labels(dropout=cases.DROPOUT),
        alignment=WeightedAlignment(alignment, cases.ALIGNMENT_WEIGHT * factor, cases.TAP),
        teacher=teacher,
    )


def _own_keys(case: cases.Case) -> dict[str, Any]:
    return {"kernel": 3, "gamma": 0.6} if case.alignment == "irepa" else {"hidden": cases.HIDDEN}


def _teacher() -> Teacher:
    def features(network: nn.Module, x: Tensor) -> Tensor:
        return network.forward_features(x)["x_norm_patchtokens"].mT.unflatten(2, (16, 16))

    mean, std = IMAGENET
    return Teacher(cases.PatchTeacher(), name="given", digest="", size=(224, 224), mean=mean, std=std, features=features)


def _stats(case: cases.Case) -> LatentStats:
    """Scalar statistics have mean 0 here, because the released code subtracts no mean."""
    if case.alignment == "irepa":
        return LatentStats("channel", *cases.channel_stats(), count=0, data="")
    return LatentStats("scalar", torch.zeros(1), torch.tensor([1 / cases.SCALE]), count=0, data="")


def _batch(step: int) -> LatentBatch:
    mean, std = cases.mean_and_std(step)
    ids = tuple(map(str, range(cases.IMAGES)))
    return LatentBatch(mean, 2 * std.log(), cases.labels(step), ids, cases.images(step))
