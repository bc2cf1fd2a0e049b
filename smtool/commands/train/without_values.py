"""A recipe's training task on the meta device, to count what a step costs: shapes, but no weights, data or autoencoder."""

import torch

from smtool.commands.train.run_autoencoder import build_task
from smtool.commands.train.teacher_precision import resolved, teacher_precision, teachers_in
from smtool.data import ImageBatch, LatentBatch
from smtool.diffusion import WeightedAlignment
from smtool.features.perceptual import PerceptualDistance
from smtool.features.teachers import load_teacher
from smtool.features.weights import without_weights
from smtool.image_shape import ImageSize
from smtool.networks.latent_norm import LatentNorm
from smtool.networks.posterior import LatentStats
from smtool.networks.recompute import recompute_activations
from smtool.recipe import TrainAE, TrainDiT
from smtool.regularizers.stay import StayingNearOriginal
from smtool.tasks.autoencoder import AutoencoderTask
from smtool.tasks.diffusion import DiffusionTask
from smtool.tasks.end_to_end import EndToEndTask

META = "meta"
Shape = tuple[int, int, int]


def autoencoder_task(tables: TrainAE) -> AutoencoderTask:
    """The task of a `train-ae` recipe. Frozen networks that are not on this machine are built by shape too."""
    stay = tables.regularizers.stay
    methods = tables.regularizers.model_copy(update={"stay": None})
    with without_weights():
        task = build_task(tables.model_copy(update={"regularizers": methods}), META, None)
        if stay is not None:      # the original need not exist: it has the shape of the model
            original = tables.model.build()
            staying = StayingNearOriginal(original, stay.weight, stay.numbers, adaptive=stay.adaptive)
            task.methods = {**task.methods, "stay": staying}
    for teacher in teachers_in(task.players.values()):
        teacher.precision = teacher_precision(tables, META)
    if tables.perceptual is not None and task.perceptual is not None:
        distance = task.perceptual[0]
        assert isinstance(distance, PerceptualDistance)
        distance.precision = resolved(tables.perceptual.precision, tables.precision, META, None)
    return task


def image_batch(tables: TrainAE, samples: int, *, labelled: bool = False) -> ImageBatch:
    images = torch.empty(samples, tables.model.image_channels, *tables.data.image_size, device=META)
    labels = torch.zeros(samples, dtype=torch.int64, device=META) if labelled else None
    return ImageBatch(images, labels, ("",) * samples)


def transformer_task(tables: TrainDiT, shape: Shape, num_classes: int) -> DiffusionTask:
    """The task of a `train-dit` recipe on latents (C, h, w). A teacher computes the features of batches that have none."""
    alignment, teacher, table = None, None, tables.alignment
    with without_weights():
        network = tables.model.build(shape, num_classes)
        if table is not None:
            teacher = load_teacher(table.teacher, token_grid=network.token_grid).to(META)
            teacher.precision = teacher_precision(tables, META)
            module = table.build(network.width, network.token_grid, teacher_dim=teacher.dim, teacher_grid=teacher.grid)
            alignment = WeightedAlignment(module.to(META), table.weight, table.depth)
    if tables.memory == "checkpoint":
        recompute_activations(network)
    uniform = tables.loss.weights == "uniform"
    return DiffusionTask(
        network.to(META),
        tables.process.build(shape),
        LatentStats("scalar", torch.zeros(1), torch.ones(1), count=1, data=""),
        labels=tables.labels,
        alignment=alignment,
        teacher=teacher,
        channel_weights=None if uniform else (1.0,) * shape[0],
        prefixes=tables.channel_prefix,
        cosine=tables.loss.cosine,
    )


def end_to_end_task(tables: TrainDiT, autoencoder: TrainAE, num_classes: int) -> EndToEndTask:
    """The task of a `train-dit` recipe with [end_to_end]. autoencoder: the tables of its autoencoder (`joint_tables`)."""
    joint, shape = tables.end_to_end, autoencoder.shapes.latents[1:]
    assert joint is not None
    norm = LatentNorm(shape[0], momentum=joint.momentum, eps=joint.eps).to(META)
    diffusion = transformer_task(tables, shape, num_classes)
    return EndToEndTask(autoencoder_task(autoencoder), diffusion, norm, weight=joint.alignment_weight)


def latent_batch(tables: TrainDiT, shape: Shape, image_size: ImageSize, image_channels: int, samples: int) -> LatentBatch:
    moments = torch.empty(samples, *shape, device=META)
    labels = None if tables.labels is None else torch.zeros(samples, dtype=torch.int64, device=META)
    images = torch.empty(samples, image_channels, *image_size, dtype=torch.uint8, device=META)
    return LatentBatch(moments, moments, labels, ("",) * samples, None if tables.alignment is None else images)
