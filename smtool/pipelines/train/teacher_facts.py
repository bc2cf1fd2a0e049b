"""What a teacher's features are like in space, before and after the alignment's filter: RMSC, LDS and CDS on some images."""

from collections.abc import Callable

import torch
from torch import Tensor

from smtool.datasets import ImageShards, to_uint8
from smtool.features.teachers import Teacher
from smtool.spectrum import cosine_distance_slope, local_distant_similarity, rmsc

NUM_IMAGES = 64
MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "RMSC": rmsc,
    "LDS": local_distant_similarity,
    "CDS": cosine_distance_slope,
}


@torch.no_grad()
def teacher_facts(teacher: Teacher, target: Callable[[Tensor], Tensor], images: ImageShards, device: str) -> tuple[str, ...]:
    """Lines for the log: the teacher, and its mean measures on the first images, of its features and of what is matched."""
    count = min(NUM_IMAGES, len(images))
    features = teacher(to_uint8(images.read(range(count)).images).to(device))
    return (
        f"teacher {teacher.name} ({teacher.digest[:8]}), {teacher.dim} features on {teacher.grid[0]} x {teacher.grid[1]}",
        f"  of its features on {count} images: {_measured(features)}",
        f"  of what the tokens are aligned with: {_measured(target(features))}",
    )


def _measured(features: Tensor) -> str:
    parts = []
    for name, measure in MEASURES.items():
        try:
            parts.append(f"{name} {measure(features).mean().item():.3f}")
        except ValueError:
            parts.append(f"{name} needs a larger grid")
    return ", ".join(parts)
