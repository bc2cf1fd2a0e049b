"""The recorded runs of the autoencoder in smtool: `AutoencoderTask` in the training loop."""

from typing import Any

import torch
from given import autoencoder_cases as cases
from given import numbers
from given.perceptual import random_lpips
from given.summary import summary
from torch import Tensor, nn

from replay.loop import run
from smtool.data.batches import ImageBatch
from smtool.features.frozen import Frozen
from smtool.features.perceptual import PerceptualDistance
from smtool.networks.sd_vae import SDVAE
from smtool.regularizers import DSM, ESM, KL, Regularizer, Shapes
from smtool.tasks.adversary import Adversary
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction
from smtool.training.optimizer import AdamW


def replayed(case: cases.Case, *, steps: int = cases.STEPS, error: dict[str, float] | None = None) -> dict[str, Any]:
    """The first `steps` steps of the case, computed by smtool.

    error: by term, a relative error of its weight, which the comparison must detect.
    """
    factor = {name: 1 + value for name, value in (error or {}).items()}
    task = _task(case, factor)
    players: dict[str, nn.Module] = {"autoencoder": task.autoencoder}
    if task.discriminator is not None:
        players["discriminator"] = task.discriminator
    table = AdamW(lr=cases.LR, weight_decay=cases.WEIGHT_DECAY, warmup=cases.WARMUP, warmup_from="zero")
    reports = run(task, dict.fromkeys(players, table), players, lambda step: _batch(case, step), steps=steps, batch=case.batch)
    found = [_in_released_words(step) for step in reports]
    critic = players.get("discriminator", nn.Identity())
    buffers = {name: value for name, value in critic.named_buffers() if value.is_floating_point()}
    return {"steps": found, "discriminator_buffers": summary(buffers)}


def comparable(case: cases.Case, recording: dict[str, Any]) -> dict[str, Any]:
    """The part of a recording that smtool computes: the released log also has sums and terms of weight 0."""
    unused = {"loss", "percept_loss", "sm_rgb", "rmsc_loss"}
    unused |= {"kl_loss"} if not case.kl else set()
    unused |= {"sm_delta"} if not case.esm else set()
    kept = {"steps", "discriminator_buffers"}
    found = {key: value for key, value in recording.items() if key in kept}
    for step in found["steps"]:
        if step["turn"] == "autoencoder":
            step["logged"] = {name: value for name, value in step["logged"].items() if name not in unused}
    return found


class RandomPerceptual(PerceptualDistance):
    """smtool's LPIPS with a network that is not read from a file."""

    def __init__(self) -> None:
        Frozen.__init__(self, random_lpips())
        self.name, self.smallest_input = "lpips_random_vgg", 16


def _task(case: cases.Case, factor: dict[str, float]) -> AutoencoderTask:
    autoencoder = SDVAE(
        downsample=2 ** (len(case.channels) - 1),
        channels=case.channels,
        latent_channels=cases.LATENT_CHANNELS,
        norm_groups=cases.GROUPS,
        downsample_pad="symmetric",
    ).build()
    adversary = Adversary(
        num_layers=cases.GAN_LAYERS,
        channels=cases.GAN_CHANNELS,
        start=cases.START,
        weight=cases.GAN_WEIGHT * factor.get("adversarial", 1.0),
    )
    discriminator = adversary.build()
    for name, network in (("autoencoder", autoencoder), ("discriminator", discriminator)):
        numbers.fill(dict(network.named_parameters()), name)
    return AutoencoderTask(
        autoencoder,
        _methods(case, factor),
        reconstruction=Reconstruction(loss="l1", weight=factor.get("l1", 1.0)),
        perceptual=(RandomPerceptual(), cases.LPIPS_WEIGHT * factor.get("lpips", 1.0)),
        adversary=adversary if case.adversary else None,
        discriminator=discriminator if case.adversary else None,
        flip=False,
    )


def _methods(case: cases.Case, factor: dict[str, float]) -> dict[str, Regularizer]:
    tables: dict[str, Any] = {}
    if case.kl:
        tables["kl"] = KL(weight=case.kl * factor.get("kl", 1.0))
    if case.esm:
        tables["esm"] = ESM(weight=case.esm * factor.get("esm", 1.0), delta=case.delta)
    if case.dsm:
        tables["dsm"] = DSM(per="batch" if case.processes == 1 else cases.IMAGES)
    methods = {name: table.build(_shapes(case), None) for name, table in tables.items()}
    if case.dsm:
        methods["dsm"].draw = lambda streams, shapes: _given_rows(case, streams.step)
    return methods


def _shapes(case: cases.Case) -> Shapes:
    images, factor = case.image_shape, 2 ** (len(case.channels) - 1)
    return Shapes(images, (images[0], cases.LATENT_CHANNELS, images[2] // factor, images[3] // factor))


def _given_rows(case: cases.Case, step: int) -> int | Tensor:
    """Replaces DSM's draw: one cut-off, or with several processes one per image, equal for the images of a process."""
    rows = [cases.ROWS_REMOVED[process][step] for process in range(case.processes)]
    return rows[0] if case.processes == 1 else torch.tensor(rows).repeat_interleave(cases.IMAGES)


def _batch(case: cases.Case, step: int) -> ImageBatch:
    images = numbers.signed_images(case.image_shape, "images", step)
    return ImageBatch(images, None, tuple(map(str, range(len(images)))))


def _in_released_words(step: dict[str, Any]) -> dict[str, Any]:
    """Rename smtool's terms to the released names; the released log has 0 for a term that is not computed yet."""
    words = {
        "l1": "recon_loss",
        "lpips": "lpips_loss",
        "kl": "kl_loss",
        "esm": "sm_delta",
        "adversarial": "disc_loss",
        "adversarial_factor": "adp_weight",
        "discriminator": "disc_loss",
    }
    values = step.pop("values")
    logged = {words.get(name, name): value for name, value in values.items()}
    if step["turn"] == "autoencoder":
        logged = {"disc_loss": 0.0, "adp_weight": 0.0, **logged}
    return {**step, "logged": logged}

