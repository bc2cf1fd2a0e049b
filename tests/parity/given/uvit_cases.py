"""The recorded runs of U-ViT: sizes, moments and labels."""

from dataclasses import dataclass

from torch import Tensor

from given import numbers

IMAGES, STEPS = 3, 5
DEPTH, WIDTH, HEADS, PATCH = 4, 32, 4, 2
CHANNELS, SIDE = 4, 8
LR, WEIGHT_DECAY, BETAS, WARMUP, EMA_DECAY = 1e-3, 0.03, (0.99, 0.99), 3, 0.9999
SCALE = 0.18215


@dataclass(frozen=True)
class Case:
    """classes: 0 for an unconditional network. The embeddings of the release and of smtool have one more row, for no class."""

    name: str
    classes: int


CASES = (Case("uvit", 0), Case("uvit-classes", 10))


def mean_and_logvar(step: int) -> tuple[Tensor, Tensor]:
    """A tenth of the log variances lies outside the range to which both trainers clamp."""
    shape = (IMAGES, CHANNELS, SIDE, SIDE)
    far = numbers.uniform(shape, "far", step) < 0.1
    logvar = -2 + numbers.normal(shape, "logvar", step)
    return 5 * numbers.normal(shape, "mean", step), logvar.where(~far, -40.0)


def labels(case: Case, step: int) -> Tensor:
    """Labels, including the null class: in the release the data set drops labels, not the trainer."""
    return numbers.integers(case.classes + 1, (IMAGES,), "labels", step)
