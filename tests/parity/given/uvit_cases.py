"""U-ViT's recorded runs. Moments and labels are those of `transformer_cases` at this size."""

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
    """classes: 0 for an unconditional network; the released one has a further row for none, as smtool's has."""

    name: str
    classes: int


CASES = (Case("uvit", 0), Case("uvit-classes", 10))


def mean_and_logvar(step: int) -> tuple[Tensor, Tensor]:
    """A tenth of the log variances lies beyond the range that both trainers clamp to."""
    shape = (IMAGES, CHANNELS, SIDE, SIDE)
    far = numbers.uniform(shape, "far", step) < 0.1
    logvar = -2 + numbers.normal(shape, "logvar", step)
    return 5 * numbers.normal(shape, "mean", step), logvar.where(~far, -40.0)


def labels(case: Case, step: int) -> Tensor:
    """The null class among them: dropping labels is the released data set's work, not the trainer's."""
    return numbers.integers(case.classes + 1, (IMAGES,), "labels", step)
