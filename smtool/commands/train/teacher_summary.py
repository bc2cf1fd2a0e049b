"""Spatial measures of a teacher's features before and after the alignment's filter: RMSC, LDS and CDS on some images."""

import torch
from torch import Tensor

from smtool.commands.train.aligned import Aligned
from smtool.data import ImageShards, to_uint8
from smtool.data.cache.write import estimated_bytes
from smtool.data.features.card import prepare_command
from smtool.data.features.prepare import FeaturePreparation
from smtool.spectrum import SPATIAL_MEASURES, SPATIAL_TITLES

NUM_IMAGES = 64


@torch.no_grad()
def teacher_summary(aligned: Aligned, images: ImageShards, *, flip: bool) -> tuple[str, ...]:
    """Lines for the log: the teacher, the source of its features, and their mean spatial measures on the first images, before
    and after the alignment's filter."""
    teacher = aligned.teacher
    count = min(NUM_IMAGES, len(images))
    if aligned.cache is None:
        features = teacher(to_uint8(images.read(range(count)).images).to(teacher.device))
    else:
        features = aligned.cache.read(range(count), [False] * count)
    return (
        f"teacher {teacher.name} ({teacher.digest[:8]}), {teacher.dim} features on {teacher.grid[0]} x {teacher.grid[1]}, "
        + _source(aligned, images, flip=flip),
        f"  its features on {count} images: {_measured(features)}",
        f"  the filtered features that tokens are aligned with: {_measured(aligned.module.target(features))}",
    )


def _source(aligned: Aligned, images: ImageShards, *, flip: bool) -> str:
    if aligned.cache is not None:
        return f"cached in {aligned.cache.folder} ({aligned.cache.card.dtype})"
    teacher, tokens = aligned.teacher, aligned.module.token_grid
    size = estimated_bytes(FeaturePreparation(teacher, images, tokens, flip=flip))
    command = prepare_command(images.folder, teacher.name, tokens) + ("" if flip else " --no-flip")
    return f"computed while training (a cache of {size / 1e6:,.0f} MB avoids this: {command})"


def _measured(features: Tensor) -> str:
    parts = []
    for name, measure in SPATIAL_MEASURES.items():
        try:
            parts.append(f"{SPATIAL_TITLES[name]} {measure(features).mean().item():.3f}")
        except ValueError:
            parts.append(f"{SPATIAL_TITLES[name]} needs a larger grid")
    return ", ".join(parts)
