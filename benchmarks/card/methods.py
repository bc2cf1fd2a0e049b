"""Every method that a recipe can name, at a size for the CPU: a new member of a union or of `Regularizers` is found by itself.

A member is built with its default keys, except for those named here: what a method requires, and what makes a network small.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch

from smtool.commands.train.run_autoencoder import build_task
from smtool.config import Config
from smtool.data.batches import ImageBatch, LatentBatch
from smtool.diffusion import AnyAlignment, WeightedAlignment
from smtool.features.encoder import RANDOM_CHANNELS
from smtool.features.teachers import load_teacher
from smtool.features.weights import random_weights
from smtool.networks import AnyAutoencoder, AnyBackbone
from smtool.networks.latent_norm import LatentNorm
from smtool.networks.posterior import LatentStats
from smtool.randomness import initializing
from smtool.recipe import TrainAE, TrainDiT
from smtool.regularizers import Regularizers
from smtool.regularizers.stay import StayingNearOriginal
from smtool.tasks.adversary import AnyAdversary
from smtool.tasks.diffusion import DiffusionTask
from smtool.tasks.end_to_end import EndToEndTask
from smtool.training.loop import Batch, Task

Tables = dict[str, Any]
BATCH, SIDE, CLASSES, LATENT = 2, 32, 3, (4, 8, 8)
_SD_VAE: Tables = {
    "kind": "sd-vae", "downsample": 4, "latent_channels": 4, "channels": [8, 8, 8], "norm_groups": 4, "blocks_per_level": 1,
}  # fmt: skip
_AUTOENCODERS: dict[str, Tables] = {
    "sd-vae": _SD_VAE,
    "taesd": {"width": 8},
    "dc-ae": {
        "downsample": 4, "latent_channels": 4, "channels": [4, 4, 4], "encoder_blocks": [0, 1, 1], "decoder_blocks": [0, 1, 1],
        "attention": [2], "head_channels": 4, "attention_scales": [3], "batch_norm": [1],
    },
    "rae": {
        "encoder": "random", "latent_channels": RANDOM_CHANNELS, "downsample": 8, "size": "custom", "depth": 1, "width": 8,
        "heads": 2, "hidden": 8,
    },
    "epsilon-vae": {**_SD_VAE, "denoiser_channels": [4], "denoiser_blocks": 1},
}  # fmt: skip
_BACKBONE: Tables = {"size": "custom", "depth": 2, "width": 16, "heads": 2, "patch": 2}
_BACKBONES: dict[str, Tables] = {"dit-dh": {"head_depth": 1, "head_width": 16, "head_heads": 2}}
_ADVERSARIES: dict[str, Tables] = {
    "patchgan": {"num_layers": 1, "channels": 8},
    "dino": {"trunk": "vit_tiny_patch16_224", "channels": 192},
}
_REGULARIZERS: dict[str, Tables] = {
    "latent_noise": {"kind": "rae", "level": 0.8},
    "channel_prefix": {"lengths": [2, 4], "per_step": 2},
    "scale_equivariance": {"scales": [0.5], "form": "append"},
    "eq_vae": {"smallest": 0.5, "probability": 1.0},
    "latent_masking": {"ratios": [0.5], "probabilities": [1.0]},
    "dsm": {"block": "fit"},
    "uae": {"teacher": "squeezenet", "low_pass": 1.0},
    "va_vae": {"teacher": "squeezenet"},
    "stay": {"original": "built below", "adaptive": True},
}
_ALIGNMENTS: dict[str, Tables] = {"repa": {"hidden": 16}, "repa-dog": {"sigma1": 0.5, "sigma2": 2.0}}


@dataclass(frozen=True)
class Method:
    """build: device -> the task there, the same on each; batch: on the host; players: whose losses are compared, in turn."""

    name: str
    build: Callable[[str], Task]
    batch: Callable[[], Batch]


def methods() -> Iterator[Method]:
    """All methods, each alone with the smallest networks, and two combinations: LPIPS, and training end to end."""
    for kind in kinds(AnyAutoencoder):
        loss = {"loss": "velocity"} if kind == "epsilon-vae" else {"loss": "l2"}
        yield _images(f"autoencoder {kind}", model={**_AUTOENCODERS.get(kind, {}), "kind": kind}, reconstruction=loss)
    yield _images("LPIPS of SqueezeNet", perceptual={"net": "squeeze"})
    for name, field in Regularizers.model_fields.items():
        keys = _REGULARIZERS.get(name, {})
        if "weight" in _table(field.annotation).model_fields:      # so that an error in it shows beside the reconstruction
            keys = {"weight": 1.0, **keys}
        yield _images(f"regularizer {name}", regularizers={name: keys})
    for kind in kinds(AnyAdversary):
        keys = {"kind": kind, "start": 0, "updates": "simultaneous", **_ADVERSARIES.get(kind, {})}
        yield _images(f"discriminator {kind}", discriminator=keys)
    for kind in kinds(AnyBackbone):
        yield _latents(f"transformer {kind}", model={"kind": kind, **_BACKBONE, **_BACKBONES.get(kind, {})})
    for kind in kinds(TrainDiT.model_fields["process"].annotation):
        yield _latents(f"process {kind}", process={"kind": kind})
    for kind in kinds(AnyAlignment):
        yield _latents(f"alignment {kind}", alignment=_alignment(kind))
    yield Method("autoencoder and transformer end to end", _end_to_end, lambda: image_batch(labelled=True))


def kinds(union: Any) -> list[str]:
    """The values of `kind` of a union of recipe tables, with or without an annotation around it."""
    members = get_args(union)
    if not isinstance(members[0], type):
        members = get_args(members[0])
    return [str(member.model_fields["kind"].default) for member in members if issubclass(member, Config)]


def _table(annotation: Any) -> type[Config]:
    """The recipe table of an optional field."""
    return next(one for one in get_args(annotation) if issubclass(one, Config))


def image_tables(**tables: Any) -> TrainAE:
    rest = {"model": _SD_VAE, "reconstruction": {"loss": "l2"}, "optimizer": {"warmup": 0}, **tables}
    return TrainAE.model_validate({"steps": 4, "data": {"train": "none", "image_size": SIDE, "batch": BATCH}, **rest})


def latent_tables(**tables: Any) -> TrainDiT:
    rest = {"model": {"kind": "sit", **_BACKBONE}, "labels": {}, "optimizer": {"warmup": 0}, **tables}
    return TrainDiT.model_validate({"steps": 4, "data": {"batch": BATCH}, "latents": {"autoencoder": "none"}, **rest})


def image_batch(*, side: int = SIDE, batch: int = BATCH, labelled: bool = False) -> ImageBatch:
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8, generator=drawn)
    return ImageBatch(images, torch.arange(batch) % CLASSES if labelled else None, tuple(map(str, range(batch))))


def latent_batch(
    *, shape: tuple[int, ...] = LATENT, side: int = SIDE, batch: int = BATCH, with_images: bool = True
) -> LatentBatch:
    mean = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    images = image_batch(side=side, batch=batch)
    return LatentBatch(
        mean, mean - 3, torch.arange(batch) % CLASSES, images.ids, images.images if with_images else None
    )


def autoencoder_task(tables: TrainAE, device: str) -> Task:
    """As a run builds it, with random weights of frozen networks, the same on every device."""
    stay = tables.regularizers.stay
    tables = tables.model_copy(update={"regularizers": tables.regularizers.model_copy(update={"stay": None})})
    with random_weights(), initializing("card"):
        task = build_task(tables, device, None)
        if stay is not None:
            original = StayingNearOriginal(tables.model.build(), stay.weight, stay.numbers, adaptive=stay.adaptive)
            task.methods["stay"] = original.to(device)
    return task


def diffusion_task(tables: TrainDiT, device: str, shape: tuple[int, int, int] = LATENT, classes: int = CLASSES) -> DiffusionTask:
    """A transformer with its alignment and teacher, as `autoencoder_task`."""
    aligned, teacher, table = None, None, tables.alignment
    with random_weights(), initializing("card"):
        network = tables.model.build(shape, classes).to(device)
        if table is not None:
            teacher = load_teacher(table.teacher, token_grid=network.token_grid)
            module = table.build(network.width, network.token_grid, teacher_dim=teacher.dim, teacher_grid=teacher.grid)
            aligned, teacher = WeightedAlignment(module.to(device), table.weight, table.depth), teacher.to(device)
    stats = LatentStats("channel", torch.zeros(shape[0]), torch.ones(shape[0]), 10, "none")
    return DiffusionTask(
        network, tables.process.build(shape), stats, labels=tables.labels, alignment=aligned, teacher=teacher,
        channel_weights=None, prefixes=tables.channel_prefix, cosine=tables.loss.cosine,
    )  # fmt: skip


def _alignment(kind: str) -> Tables:
    return {"kind": kind, "teacher": "squeezenet", "depth": 1, "resize": "bilinear", **_ALIGNMENTS.get(kind, {})}


def _images(name: str, **tables: Any) -> Method:
    return Method(name, lambda device: autoencoder_task(image_tables(**tables), device), image_batch)


def _latents(name: str, **tables: Any) -> Method:
    return Method(name, lambda device: diffusion_task(latent_tables(**tables), device), latent_batch)


def _end_to_end(device: str) -> Task:
    image = image_tables(discriminator={"start": 0, "updates": "simultaneous", **_ADVERSARIES["patchgan"]})
    diffusion = diffusion_task(latent_tables(alignment=_alignment("repa")), device)
    norm = LatentNorm(LATENT[0], momentum=0.1, eps=1e-4).to(device)
    autoencoding: Any = autoencoder_task(image, device)
    return EndToEndTask(autoencoding, diffusion, norm, weight=1.5)


def frozen_in(task: Any) -> Iterator[torch.nn.Module]:
    """All modules that a task holds, also outside of its players."""
    for part in (task, getattr(task, "autoencoding", None), getattr(task, "diffusion", None)):
        for value in vars(part).values() if part is not None else ():
            found = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
            yield from (one for one in found if isinstance(one, torch.nn.Module))
