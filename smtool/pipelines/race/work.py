"""The pieces of work that a race is cut into. Each is done by a worker process, and doing it again changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from smtool.pipelines.prepare.latents import prepare_latents
from smtool.pipelines.race.plan import AutoencoderRun, Cell, Images
from smtool.pipelines.race.predictors import predict
from smtool.pipelines.race.scoring import score_cell
from smtool.pipelines.train.run_autoencoder import autoencoder_run
from smtool.pipelines.train.run_diffusion import diffusion_run
from smtool.pipelines.train.training import train
from smtool.recipe import TrainAE, TrainDiT
from smtool.recipe.race import Judge, Training
from smtool.report.console import Console


@dataclass(frozen=True)
class Place:
    """Where a worker computes, and where it finds weights of feature networks."""

    device: str
    weights_dir: Path | None


class Work(Protocol):
    """A piece of work."""

    def do(self, place: Place) -> Any: ...


@dataclass(frozen=True)
class Train:
    """A turn of a training run: from where it stands to `step`."""

    training: Training
    out: Path
    step: int

    def do(self, place: Place) -> None:
        recipe = self.training.load()
        assemble: Callable[..., Any] = autoencoder_run if isinstance(recipe.tables, TrainAE) else diffusion_run
        train(
            recipe,
            assemble,
            console=Console(quiet=True),
            out=self.out,
            device=place.device,
            weights_dir=place.weights_dir,
            pause_at=self.step,
        )


@dataclass(frozen=True)
class Encode:
    """The latent cache of an autoencoder, which its transformers share."""

    autoencoder: AutoencoderRun
    images: Images
    transformer: Training

    def do(self, place: Place) -> None:
        tables = self.transformer.tables
        assert isinstance(tables, TrainDiT)
        if not tables.latents.online:
            prepare_latents(
                str(self.autoencoder.path),
                data=self.images.train,
                image_size=self.images.image_size,
                flip=tables.data.flip,
                dtype=tables.latents.dtype,
                workers=1,
                device=place.device,
            )


@dataclass(frozen=True)
class Score:
    """Samples of a transformer, and their distance to images. Returns what is written to the cell's file."""

    cell: Cell
    images: Images
    judge: Judge
    folder: Path

    def do(self, place: Place) -> dict[str, Any]:
        return score_cell(
            self.cell, self.images, self.judge, folder=self.folder, device=place.device, weights_dir=place.weights_dir
        )


@dataclass(frozen=True)
class Predict:
    """What needs no transformer. Returns what is written to the autoencoder's file."""

    autoencoder: AutoencoderRun
    images: Images
    judge: Judge
    folder: Path

    def do(self, place: Place) -> dict[str, Any]:
        return predict(
            self.autoencoder, self.images, self.judge, folder=self.folder, device=place.device, weights_dir=place.weights_dir
        )
