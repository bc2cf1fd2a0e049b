"""The tables of a `race` recipe: autoencoders to compare, images, training budget, and scores."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from smtool.config import Config
from smtool.errors import RecipeError
from smtool.image_shape import ImageSize
from smtool.recipe.catalog import command, find
from smtool.recipe.files import Recipe, load
from smtool.recipe.problems import raise_problems
from smtool.recipe.train_ae import TrainAE
from smtool.recipe.train_dit import TrainDiT

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*")
Metric = Literal["fd", "kd", "mind"]
_BUDGET = ("steps", "accumulate", "precision", "optimizer", "ema")


class RaceData(Config):
    """The images that all racers are trained on."""

    train: str = Field(
        "", description="training images: a prepared folder, raw images or builtin:NAME; empty: those of the checkpoints"
    )
    validation: str = Field("", description="images for validation; empty: the validation split of `train`")
    image_size: ImageSize | Literal[0] = Field(
        0, description="height and width of the images in pixels: one number for squares, else both; 0: those of the checkpoints"
    )


class Racer(Config):
    """An autoencoder, and changes to its transformer. Racers with the same autoencoder share it."""

    recipe: str = Field("", description="a train-ae recipe, which the race trains once for each seed")
    changes: tuple[str, ...] = Field((), description="KEY=VALUE overrides of that recipe, applied after those of [autoencoders]")
    checkpoint: str = Field("", description="an existing autoencoder, instead of a recipe")
    transformer: tuple[str, ...] = Field((), description="KEY=VALUE overrides of this racer's transformer, such as an alignment")

    def problems(self) -> Iterator[tuple[str, str]]:
        if bool(self.recipe) == bool(self.checkpoint):
            found = "both are given" if self.recipe else "neither is given"
            yield "recipe", f"either a recipe to train or a checkpoint is needed, but {found}"
        if self.checkpoint and self.changes:
            yield "changes", "are possible for a recipe only; a checkpoint is used unchanged"


class Autoencoders(Config):
    """Settings of all autoencoders that the race trains."""

    changes: tuple[str, ...] = Field(
        (), description="KEY=VALUE overrides of each racer's recipe, such as the network and the budget"
    )


class Transformer(Config):
    """The transformer that is trained on the latents of every racer."""

    recipe: str = Field("race/nano-sit", description="a train-dit recipe")
    changes: tuple[str, ...] = Field((), description="KEY=VALUE overrides of that recipe")


class Judge(Config):
    """How samples are scored. The metric on the first feature extractor ranks the racers; all others are reported too."""

    metric: Metric = Field(
        "kd", description="the distance that ranks: Frechet distance, kernel distance or MIND; a race reports all three"
    )
    features: tuple[str, ...] = Field(("random",), min_length=1, description="feature extractors; the first one ranks")
    num_images: int = Field(2000, ge=10, description="number of samples, and of reconstructions, for each racer and seed")
    predictors: bool = Field(
        True, description="also compute predictors that need no transformer, and how well they would have ranked"
    )


class Judging(Config):
    """The part of a race that can change after it: its judge."""

    judge: Judge


class Race(Config):
    """A recipe of `smtool race`."""

    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="seeds; autoencoder and transformer are trained once for each"
    )
    turn: int = Field(500, ge=1, description="training steps of one racer before the race switches to the next one")
    data: RaceData = RaceData()
    autoencoders: Autoencoders = Autoencoders()
    transformer: Transformer = Transformer()
    judge: Judge = Judge()
    racers: dict[str, Racer] = Field(min_length=1, description="the racers, by name")

    def problems(self) -> Iterator[tuple[str, str]]:
        """(key, sentence) for all problems that can be found without loading the recipes that this one names."""
        if len(set(self.seeds)) < len(self.seeds):
            yield "seeds", f"one is given twice: {list(self.seeds)}"
        if len(set(self.judge.features)) < len(self.judge.features):
            yield "judge.features", f"one is given twice: {list(self.judge.features)}"
        for name, racer in self.racers.items():
            if not _NAME.fullmatch(name):
                yield f"racers.{name}", "a name may contain only letters, digits and _ . + = - because it becomes a folder name"
            for key, sentence in racer.problems():
                yield f"racers.{name}.{key}", sentence
        trained = [name for name, racer in self.racers.items() if racer.recipe]
        for key in ("train", "image_size"):
            if trained and not getattr(self.data, key):
                yield f"data.{key}", f"is required, because the race trains {trained[0]}"

    def remarks(self) -> Iterator[str]:
        """Sentences about settings with an unexpected effect."""
        if len(self.seeds) < 3:
            yield f"{len(self.seeds)} seeds: too few to estimate the spread between seeds, so most differences stay undecided."


@dataclass(frozen=True)
class Training:
    """A recipe with the KEY=VALUE overrides with which it was loaded, so that it can be loaded again with more of them."""

    recipe: str
    changes: tuple[str, ...]
    tables: TrainAE | TrainDiT

    @property
    def kind(self) -> type[TrainAE] | type[TrainDiT]:
        return type(self.tables)

    def load(self, more: Sequence[str] = (), *, weights_dir: Path | None = None) -> Recipe[Any]:
        return load(self.recipe, self.kind, [*self.changes, *more], weights_dir=weights_dir)


@dataclass(frozen=True)
class Entry:
    """A racer with its loaded recipes. autoencoder: None for a checkpoint."""

    name: str
    racer: Racer
    autoencoder: Training | None
    transformer: Training


def load_race(
    recipe: str, overrides: Sequence[str] = (), *, weights_dir: Path | None = None
) -> tuple[Recipe[Race], list[Entry]]:
    """Load a race recipe and all recipes that it names. Raises one RecipeError that lists the problems of all of them.

    weights_dir: searched first for the weights of frozen encoders.
    """
    if not is_race(recipe):
        right = command(find(recipe))
        raise RecipeError(f"{recipe} is a recipe of {right}.", hint=f"Use: smtool {right} {recipe}")
    loaded = load(recipe, Race, overrides)
    problems: list[str] = []
    entries = [entry for name in loaded.tables.racers if (entry := _entry(loaded.tables, name, problems, weights_dir))]
    problems += _unequal(entries)
    raise_problems(loaded.path, problems)
    return loaded, entries


def is_race(recipe: str) -> bool:
    """Whether a path or name is that of a race recipe. False for invalid TOML, for which `load` raises the error."""
    try:
        return command(find(recipe)) == "race"
    except tomllib.TOMLDecodeError:
        return False


def _entry(race: Race, name: str, problems: list[str], weights_dir: Path | None) -> Entry | None:
    """Load a racer's recipes; their problems are appended to `problems`, and None is returned."""
    racer = race.racers[name]
    ours = [f"data.{key}={_toml(value)}" for key, value in race.data.model_dump().items() if value]
    before = len(problems)
    autoencoder = None
    if racer.recipe:
        changes = (*race.autoencoders.changes, *ours, *racer.changes)
        autoencoder = _training(f"racers.{name}.recipe", racer.recipe, TrainAE, changes, problems, weights_dir)
    where = f"racers.{name}.transformer" if racer.transformer else "transformer.recipe"
    changes = (*race.transformer.changes, *racer.transformer)
    transformer = _training(where, race.transformer.recipe, TrainDiT, changes, problems, weights_dir)
    if transformer is not None and isinstance(transformer.tables, TrainDiT) and transformer.tables.end_to_end is not None:
        sentence = "has an [end_to_end] table, but racers keep their autoencoders; race autoencoder.safetensors of finished runs"
        if (problem := f"{where}: {sentence}") not in problems:
            problems.append(problem)
    if len(problems) > before or transformer is None:
        return None
    return Entry(name, racer, autoencoder, transformer)


def _training(
    where: str,
    recipe: str,
    kind: type[TrainAE] | type[TrainDiT],
    changes: tuple[str, ...],
    problems: list[str],
    weights_dir: Path | None,
) -> Training | None:
    try:
        if command(find(recipe)) != ("train-ae" if kind is TrainAE else "train-dit"):
            raise RecipeError(f"{recipe} is a recipe of {command(find(recipe))}")
        return Training(recipe, changes, load(recipe, kind, changes, weights_dir=weights_dir).tables)
    except (RecipeError, tomllib.TOMLDecodeError) as error:
        sentence = f"{where}: {error}"
        if sentence not in problems:      # all racers share the transformer's recipe
            problems.append(sentence)
        return None


def _unequal(entries: Sequence[Entry]) -> list[str]:
    """Problems of racers with a different training budget than the first."""
    problems = []
    for what in ("autoencoder", "transformer"):
        trained = [(entry.name, training.tables) for entry in entries if (training := getattr(entry, what))]
        for name, tables in trained[1:]:
            first, reference = trained[0]
            for key in _BUDGET:
                if getattr(tables, key) != getattr(reference, key):
                    problems.append(_difference(name, f"{what}'s {key}", tables, reference, key, first))
            if tables.data.batch != reference.data.batch:
                problems.append(_difference(name, f"{what}'s data.batch", tables.data, reference.data, "batch", first))
    return problems


def _difference(name: str, what: str, ours: Config, theirs: Config, key: str, first: str) -> str:
    shown = [getattr(value, "model_dump", lambda value=value: value)() for value in (getattr(ours, key), getattr(theirs, key))]
    if all(isinstance(value, dict) for value in shown):
        keys = [k for k in shown[0] if shown[0][k] != shown[1][k]]
        shown = [{k: value[k] for k in keys} for value in shown]
    return f"racers.{name}: the {what} is {shown[0]}, but {shown[1]} for {first}; all racers must have the same budget"


def _toml(value: object) -> str:
    return str(value) if isinstance(value, int | list) else f"'{value}'"
