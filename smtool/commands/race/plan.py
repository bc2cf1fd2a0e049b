"""Plan of a race: runs of autoencoders, and runs of transformers on their latents, all with the same number of tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from smtool.commands.race.images import training_images
from smtool.commands.race.result import Images
from smtool.data.images.card import is_prepared, read_card
from smtool.data.images.open import known_channels
from smtool.data.latents.dct_measures import with_measured_eta
from smtool.errors import CheckpointError, RecipeError, SmtoolError
from smtool.image_shape import ImageSize
from smtool.recipe import TrainAE, TrainDiT
from smtool.recipe.race import Entry, Judge, Race, Training
from smtool.tokenizers import identify, open_tokenizer
from smtool.tokenizers.dct import needs_measured_eta

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class AutoencoderRun:
    """An autoencoder. seed: None for a checkpoint, which all seeds share; path: folder of the run, or the checkpoint."""

    name: str
    seed: int | None
    path: Path
    training: Training | None

    @property
    def key(self) -> str:
        return self.name if self.seed is None else f"{self.name}-seed{self.seed}"

    @property
    def steps(self) -> int:
        return self.training.tables.steps if self.training else 0


@dataclass(frozen=True)
class TrainedTrial:
    """What scoring needs of a trial. autoencoder: key of its run; path: folder of the transformer's run."""

    racer: str
    seed: int
    autoencoder: str
    path: Path

    @property
    def key(self) -> str:
        return f"{self.racer}-seed{self.seed}"


@dataclass(frozen=True)
class Trial:
    """One racer with one seed: a transformer's run on an autoencoder's latents."""

    racer: str
    seed: int
    autoencoder: AutoencoderRun
    path: Path
    training: Training

    @property
    def key(self) -> str:
        return self.trained.key

    @property
    def trained(self) -> TrainedTrial:
        return TrainedTrial(self.racer, self.seed, self.autoencoder.key, self.path)


@dataclass(frozen=True)
class RacePlan:
    """The whole plan. trials: by racer, then by seed, without broken racers; broken: racer -> error that keeps it from starting;
    turn: number of steps in a turn."""

    folder: Path
    images: Images
    seeds: tuple[int, ...]
    racers: tuple[str, ...]
    turn: int
    judge: Judge
    tokens: int
    trials: tuple[Trial, ...]
    broken: dict[str, SmtoolError] = field(default_factory=dict)

    @property
    def autoencoders(self) -> list[AutoencoderRun]:
        """Every autoencoder once, in the order of the trials."""
        return list({trial.autoencoder.key: trial.autoencoder for trial in self.trials}.values())

    @property
    def steps(self) -> int:
        """Number of steps of every transformer."""
        return self.trials[0].training.tables.steps


def plan_race(race: Race, entries: Sequence[Entry], folder: Path) -> RacePlan:
    """Plan all runs. Raises RecipeError if racers cannot have equal tokens, and the first racer's error if none can start.

    Racers with equal autoencoder recipes (or the same checkpoint) share one autoencoder for each seed, named after the first.
    """
    images = _images(race, entries)
    entries = _with_measured_etas(entries, images)
    shapes: dict[str, Shape] = {}
    broken: dict[str, SmtoolError] = {}
    for entry in entries:
        try:
            shapes[entry.name] = _latent_shape(entry, images)
        except SmtoolError as error:
            broken[entry.name] = error
    if not shapes:
        raise next(iter(broken.values()))
    starters = [entry for entry in entries if entry.name in shapes]
    patches, tokens = equal_tokens(shapes, {entry.name: _patch(entry) for entry in starters})
    owners = _owners(starters)
    trials = tuple(
        _trial(race, entry, seed, owners[entry.name], patches[entry.name], images, folder)
        for entry in starters
        for seed in race.seeds
    )
    names = tuple(entry.name for entry in entries)
    return RacePlan(folder, images, race.seeds, names, race.turn, race.judge, tokens, trials, broken)


def equal_tokens(shapes: dict[str, Shape], patches: dict[str, int]) -> tuple[dict[str, int], int]:
    """(racer -> patch, tokens): patches that give every transformer as many tokens as the one on the smallest latents.

    shapes: racer -> (C, h, w); patches: racer -> patch of its recipe, which the racer with the smallest latents keeps.
    Raises RecipeError if there are no such patches.
    """
    sizes = {name: shape[1:] for name, shape in shapes.items()}
    smallest = min(sizes, key=lambda name: sizes[name][0] / patches[name])
    patch, (height, width) = patches[smallest], sizes[smallest]
    if height % patch or width % patch:
        sides = height if height == width else f"{height} x {width}"
        raise RecipeError(
            f"transformer: patch = {patch} does not divide {sides}, the side of {smallest}'s latents.",
            hint='Add "model.patch=1" to transformer.changes.',
        )
    rows, columns = height // patch, width // patch
    cells = f"{height} cells per side" if height == width else f"{height} x {width} cells"
    for name, (high, wide) in sizes.items():
        if high % rows or wide % columns or high // rows != wide // columns:
            raise RecipeError(
                f"Racers must have equally many tokens, but the {high} x {wide} latents of {name} cannot be divided into {rows} "
                f"x {columns} tokens, those of {smallest} ({cells}, patch {patch}).",
                hint="Race autoencoders whose latent sides differ by a whole factor, or choose another model.patch.",
            )
    return {name: high // rows for name, (high, _) in sizes.items()}, rows * columns


def _images(race: Race, entries: Sequence[Entry]) -> Images:
    """The recipe's images, else those that the checkpoints were trained on. Raises RecipeError if these differ."""
    data = race.data
    known = [found for entry in entries if entry.racer.checkpoint and (found := _trained_on(entry.racer.checkpoint))]
    train = data.train or _agreed("train", known)
    validation = data.validation or ("" if data.train else next((str(k["validation"]) for k in known if k.get("validation")), ""))
    prepared = read_card(Path(train)).image_size if is_prepared(Path(train)) else None
    image_size = data.image_size or prepared or ImageSize.of(json.loads(_agreed("image_size", known)))
    return Images(train=train, validation=validation, image_size=image_size, image_channels=_channels(entries, train))


def _with_measured_etas(entries: Sequence[Entry], images: Images) -> list[Entry]:
    """The entries, with the number that the training images give in place of each eta=measured of a DCT tokenizer."""
    asked = {entry.racer.checkpoint for entry in entries if needs_measured_eta(entry.racer.checkpoint)}
    measured = {name: with_measured_eta(name, training_images(images)) for name in sorted(asked)}
    return [
        replace(entry, racer=entry.racer.model_copy(update={"checkpoint": measured.get(place, place)}))
        for entry in entries
        for place in [entry.racer.checkpoint]
    ]


def _channels(entries: Sequence[Entry], train: str) -> int:
    """Number of channels of the images: that of the first autoencoder that is trained here, else of the prepared images."""
    for entry in entries:
        if entry.autoencoder is not None:
            assert isinstance(entry.autoencoder.tables, TrainAE)
            return entry.autoencoder.tables.model.image_channels
    return known_channels(train)


def _trained_on(checkpoint: str) -> dict[str, object]:
    """The [data] table of a checkpoint's recipe; {} for broken or foreign checkpoints."""
    try:
        return dict(identify(checkpoint).metadata.get("recipe", {}).get("data", {}))
    except SmtoolError:
        return {}


def _agreed(key: str, known: Sequence[dict[str, object]]) -> str:
    values = {str(data[key]) for data in known if data.get(key)}
    if len(values) != 1:
        found = f"the checkpoints were trained with {' and '.join(sorted(values))}" if values else "no checkpoint states it"
        raise RecipeError(
            f"data.{key} is not given, and {found}.",
            hint="Give it: --data FOLDER" if key == "train" else "Give it: --set data.image_size=SIZE",
        )
    return values.pop()


def _latent_shape(entry: Entry, images: Images) -> Shape:
    """(C, h, w) of the racer's latents. Raises an error if it encodes images of another size or of other channels."""
    if entry.autoencoder is not None:
        assert isinstance(entry.autoencoder.tables, TrainAE)
        _check_channels(entry.name, entry.autoencoder.tables.model.image_channels, images)
        return entry.autoencoder.tables.shapes.latents[1:]
    checkpoint = entry.racer.checkpoint
    tokenizer = open_tokenizer(checkpoint, image_size=images.image_size, image_channels=images.image_channels)
    _check_channels(entry.racer.checkpoint, tokenizer.image_channels, images)
    if not tokenizer.can_decode:
        raise CheckpointError(f"{entry.racer.checkpoint} has no decoder.", hint="Race autoencoders that have one.")
    try:
        return tokenizer.latent_shape(*images.image_size)
    except ValueError as error:
        raise CheckpointError(f"{entry.racer.checkpoint}: {error}.") from error


def _check_channels(racer: str, channels: int, images: Images) -> None:
    if channels != images.image_channels:
        raise RecipeError(
            f"{racer} encodes images with image_channels = {channels}, but those of the race have {images.image_channels}.",
            hint="Race autoencoders of the same number of image channels, on images prepared with the --mode that has them.",
        )


def _patch(entry: Entry) -> int:
    assert isinstance(entry.transformer.tables, TrainDiT)
    return entry.transformer.tables.model.patch


def _owners(entries: Sequence[Entry]) -> dict[str, str]:
    """Racer -> the first racer with an equal autoencoder."""
    first: dict[str, str] = {}
    owners = {}
    for entry in entries:
        trained = entry.autoencoder
        what = json.dumps(trained.tables.model_dump(mode="json")) if trained else entry.racer.checkpoint
        owners[entry.name] = first.setdefault(what, entry.name)
    return owners


def _trial(race: Race, entry: Entry, seed: int, owner: str, patch: int, images: Images, folder: Path) -> Trial:
    autoencoder = _autoencoder_run(race, entry, seed, owner, folder)
    changes = (
        f"seed={seed}",
        f"latents.autoencoder='{autoencoder.path}'",
        f"data.train='{images.train}'",
        f"data.image_size={images.image_size.stored}",
        f"model.patch={patch}",
        *_saving(race, entry.transformer),
    )
    training = Training(entry.transformer.recipe, (*entry.transformer.changes, *changes), entry.transformer.tables)
    return Trial(entry.name, seed, autoencoder, folder / "transformers" / f"{entry.name}-seed{seed}", training)


def _autoencoder_run(race: Race, entry: Entry, seed: int, owner: str, folder: Path) -> AutoencoderRun:
    if entry.autoencoder is None:
        return AutoencoderRun(owner, None, Path(identify(entry.racer.checkpoint).place), None)
    changes = (*entry.autoencoder.changes, f"seed={seed}", *_saving(race, entry.autoencoder))
    training = Training(entry.autoencoder.recipe, changes, entry.autoencoder.tables)
    return AutoencoderRun(owner, seed, folder / "autoencoders" / f"{owner}-seed{seed}", training)


def _saving(race: Race, training: Training) -> tuple[str, ...]:
    """Changes of a run's recipe: a checkpoint at the end of each turn, and at least one row of losses in it."""
    turn = min(race.turn, training.tables.steps)
    rows = min(turn, training.tables.log_every)
    return (f"save_every={turn}", f"log_every={rows}", "keep_last=1", "tracking.tensorboard=false")
