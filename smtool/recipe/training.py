"""What every training recipe says: lengths, intervals, precision, optimizer, averages, and where numbers go."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from smtool.config import Config, LossConfig
from smtool.training.ema import EMA
from smtool.training.optimizer import AdamW
from smtool.training.precision import Precision


class Tracking(Config):
    """Where numbers go beside metrics.jsonl, which is always written."""

    tensorboard: bool | Literal["installed"] = Field("installed", description='"installed": when TensorBoard is there')
    wandb: str = Field("", description="a Weights & Biases project; empty: none")


class TrainingTables(Config):
    """Keys that `train-ae` and `train-dit` share."""

    seed: int = Field(0, ge=0, description="every random number of the run follows from it")
    steps: int = Field(ge=1, description="a step takes in one batch; with alternating updates it is one player's turn")
    log_every: int = Field(50, ge=1, description="steps between rows of metrics.jsonl")
    evaluate_every: int = Field(1000, ge=1, description="steps between validations")
    save_every: int = Field(1000, ge=1, description="steps between checkpoints")
    keep_last: int = Field(2, ge=1, description="newest checkpoints that stay")
    keep_every: int = Field(0, ge=0, description="checkpoints at multiples of this stay too; 0: none")
    precision: Precision = Field("fp32", description="fp32, or autocast to bf16 or fp16 with weights in fp32")
    accumulate: int = Field(1, ge=1, description="micro-batches that each rank cuts its share of the batch into")
    optimizer: AdamW
    ema: EMA | None = None
    tracking: Tracking = Tracking()

    def problems(self) -> Iterator[tuple[str, str]]:
        """(key, sentence) for every combination of values that cannot work, found before anything is built."""
        yield from ()

    def learned_from(self) -> list[str]:
        """Names of the frozen networks in the losses, none of which is an impartial judge of the result."""
        tables = [value for value in vars(self).values() if isinstance(value, LossConfig)]
        return sorted({name for table in tables for name in table.learned_from()})

    def remarks(self) -> Iterator[str]:
        """Settings that have no effect in this run, or not the one that they seem to have."""
        warmup = self.optimizer.warmup
        if warmup > self.steps:
            yield f"optimizer.warmup = {warmup} goes beyond steps = {self.steps}: the rate stays below optimizer.lr."
