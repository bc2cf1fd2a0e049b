"""Jobs of a race. Each is done by a worker; doing a finished job again changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from smtool.commands.prepare.latents import prepare_latents
from smtool.commands.race.plan import AutoencoderRun, TrainedTrial
from smtool.commands.race.predictors import measure_predictors
from smtool.commands.race.result import Images
from smtool.commands.race.scoring import score_trial
from smtool.commands.train.run_autoencoder import autoencoder_run
from smtool.commands.train.run_diffusion import diffusion_run
from smtool.commands.train.training import train
from smtool.recipe import TrainAE, TrainDiT
from smtool.recipe.race import Judge, Training
from smtool.report.console import Console


@dataclass(frozen=True)
class Place:
    """Device of a worker, and the folder with weights of feature networks."""

    device: str
    weights_dir: Path | None


class Job(Protocol):
    """A piece of work whose result is written to the race's folder."""

    def do(self, place: Place) -> None: ...


@dataclass(frozen=True)
class Train:
    """Train a run from its newest checkpoint to `step`."""

    training: Training
    out: Path
    step: int

    def do(self, place: Place) -> None:
        recipe = self.training.load(weights_dir=place.weights_dir)
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
    """Write the latent cache of an autoencoder, which all its transformers use."""

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
                precision=tables.latents.precision,
                workers=1,
                device=place.device,
            )


@dataclass(frozen=True)
class Score:
    """Draw samples of a transformer, and measure their distance to real images."""

    trial: TrainedTrial
    images: Images
    judge: Judge
    folder: Path

    def do(self, place: Place) -> None:
        score_trial(
            self.trial, self.images, self.judge, folder=self.folder, device=place.device, weights_dir=place.weights_dir
        )


@dataclass(frozen=True)
class Predict:
    """Measure the predictors of an autoencoder, which need no transformer."""

    autoencoder: AutoencoderRun
    images: Images
    judge: Judge
    folder: Path

    def do(self, place: Place) -> None:
        measure_predictors(
            self.autoencoder, self.images, self.judge, folder=self.folder, device=place.device, weights_dir=place.weights_dir
        )
