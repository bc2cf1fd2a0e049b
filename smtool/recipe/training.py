"""Keys that all training recipes share: lengths, intervals, precision, optimizer, EMA, and tracking."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from smtool.config import Config, LossConfig
from smtool.training.ema import EMA
from smtool.training.optimizer import AdamW
from smtool.training.precision import Precision


class Tracking(Config):
    """Trackers that receive the metrics in addition to metrics.jsonl, which is always written."""

    tensorboard: bool | Literal["installed"] = Field(
        "installed", description='write TensorBoard logs; "installed": if TensorBoard is installed'
    )
    wandb: str = Field("", description="name of a Weights & Biases project; empty: do not use Weights & Biases")


class TrainingTables(Config):
    """Keys that `train-ae` and `train-dit` share."""

    seed: int = Field(0, ge=0, description="seed of all random numbers of the run")
    steps: int = Field(ge=1, description="length of the run; a step uses one batch, and updates one network if updates alternate")
    log_every: int = Field(50, ge=1, description="steps between rows of metrics.jsonl")
    evaluate_every: int = Field(1000, ge=1, description="steps between validations")
    save_every: int = Field(1000, ge=1, description="steps between checkpoints")
    keep_last: int = Field(2, ge=1, description="number of newest checkpoints to keep")
    keep_every: int = Field(
        0, ge=0, description="also keep the checkpoints of steps that are multiples of this; 0: keep no others"
    )
    precision: Precision = Field(
        "fp32", description="fp32, or autocast to bf16 or fp16 with weights in fp32; fp16 uses loss scaling"
    )
    teacher_precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="precision of frozen networks that compute in every step: teachers (alignment, va_vae, uae), the original of "
        "stay, the encoder of an RAE, the DINO of a discriminator; caches, validation and scores stay fp32. "
        '"auto": bf16 on a GPU that has it, if `precision` is not fp32; else fp32',
    )
    deterministic: bool = Field(
        False,
        description="on a GPU, use only algorithms that give the same bits in every run: slower, and an operator without one is "
        "an error; runs on a CPU always repeat bit for bit",
    )
    accumulate: int = Field(1, ge=1, description="micro-batches per step and rank, whose gradients are added; saves memory")
    memory: Literal["plain", "checkpoint"] = Field(
        "plain",
        description='"checkpoint": store only the inputs of blocks and compute their activations again in the backward pass: '
        "less memory, more time, the same result",
    )
    optimizer: AdamW
    ema: EMA | None = None
    tracking: Tracking = Tracking()

    @property
    def same_shapes(self) -> bool:
        """Whether all training batches have one of a few shapes."""
        return True

    @classmethod
    def completed(cls, values: dict[str, Any], weights_dir: Path | None = None) -> tuple[dict[str, Any], list[str]]:
        """(the values of a recipe file with those that follow from other files, problems), before validation.

        weights_dir: searched first for the weights of a frozen encoder.
        """
        return values, []

    def problems(self) -> Iterator[tuple[str, str]]:
        """(key, sentence) for every impossible combination of values; checked when the recipe is loaded."""
        yield from ()

    def learned_from(self) -> list[str]:
        """Names of the frozen networks in the losses; scores from these networks are biased in favor of the result."""
        tables = [value for value in vars(self).values() if isinstance(value, LossConfig)]
        return sorted({name for table in tables for name in table.learned_from()})

    def remarks(self) -> Iterator[str]:
        """Sentences about settings without effect, or with an unexpected effect, in this run."""
        warmup = self.optimizer.warmup
        if warmup > self.steps:
            yield f"optimizer.warmup = {warmup} is more than steps = {self.steps}: the rate stays below optimizer.lr."
