"""The start of a `train-ae` run from trained weights: the original autoencoder, what trains, and what the console says."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtool.checkpoints.foreign.origin import has_patch_norm
from smtool.checkpoints.foreign.settings import Settings
from smtool.errors import CheckpointError, RecipeError
from smtool.networks.rae import RepresentationAutoencoder
from smtool.networks.trainable import TrainableAutoencoder
from smtool.recipe import TrainAE
from smtool.recipe.initial import start_of
from smtool.recipe.selection import ALL, multipliers, trained_names
from smtool.tokenizers import identify
from smtool.training.selection import saved_bytes, train_only

SOURCE = "autoencoder of model.init"


@dataclass(frozen=True)
class Start:
    """The original autoencoder of `model.init`, frozen, on the CPU.

    name: as given; place: the absolute path of its file or folder with the given settings, or its name on the hub; path,
    settings: of that file or folder; published: it is not a file of smtool; metadata: that of a file of smtool.
    """

    name: str
    original: TrainableAutoencoder
    place: str
    path: Path
    settings: Settings
    published: bool
    metadata: Mapping[str, Any]

    @property
    def sources(self) -> Mapping[str, str]:
        return {SOURCE: self.original.digest}

    @property
    def normalizes_patches(self) -> bool:
        """Whether the original's latents are normalized by statistics of 2x2 patches, as FLUX.2's are."""
        stats, earlier = self.original.stats, self.metadata.get("origin") or {}
        if stats is not None and stats.kind == "patch":
            return True
        return "patch_mean" in earlier or (self.published and has_patch_norm(self.path, self.settings))


def open_start(tables: TrainAE, recorded: str | None, weights_dir: Path | None = None) -> Start | None:
    """The original autoencoder; None if the recipe starts from random weights.

    recorded: its digest when the run was last started, None for a new run. Raises CheckpointError if it has changed.
    """
    name = tables.model.init
    if not name:
        return None
    original = start_of(name, weights_dir)
    stated = tables.model.model_dump(exclude={"init"})
    if original.config.model_dump(exclude={"init"}) != stated:
        raise CheckpointError(
            f"model.init: {name} has another architecture than when the recipe was read.", hint="Repeat the command."
        )
    if recorded not in (None, original.digest):
        raise CheckpointError(
            f"model.init: the run was started from {name} with digest {recorded[:12]}, but its digest is now "
            f"{original.digest[:12]}.",
            hint="Restore the earlier file, or start over with --fresh.",
        )
    found = identify(name)
    assert found.path is not None, "an autoencoder with weights"
    place = found.place if found.on_hub else f"{found.path.resolve()}{found.settings.suffix}"
    start = Start(name, original, place, found.path, found.settings, published=found.kind == "foreign", metadata=found.metadata)
    _refuse_odd(start, tables)
    return start


def _refuse_odd(start: Start, tables: TrainAE) -> None:
    """Raise RecipeError if the new latents have no 2x2 patches, of which statistics are to be measured at the end."""
    height, width = tables.shapes.latents[-2:]
    if tables.trains_encoder and (height % 2 or width % 2) and start.normalizes_patches:
        raise RecipeError(
            f"data.image_size: latents of {height}x{width} cells have no whole 2x2 patches, by which {start.name} is normalized.",
            hint=f"Use sides that are multiples of {2 * tables.shapes.downsample}.",
        )


def select_trained(autoencoder: TrainableAutoencoder, tables: TrainAE) -> None:
    """Freeze the parameters that `train` does not select."""
    if tables.train != ALL:
        train_only(autoencoder, trained_names(autoencoder, tables.train))


def rate_factors(autoencoder: TrainableAutoencoder, tables: TrainAE) -> dict[str, float]:
    """Factors of the learning rate by name of the parameter of the player."""
    return {f"autoencoder.{name}": factor for name, factor in multipliers(autoencoder, tables.lr_multipliers).items()}


def start_lines(autoencoder: TrainableAutoencoder, tables: TrainAE, start: Start | None) -> list[str]:
    """Lines for the log: where the weights come from, what trains, what this saves, and whether latents change."""
    lines = []
    if start is not None:
        lines.append(f"starting from {start.name} ({start.original.architecture}, digest {start.original.digest[:12]})")
    if isinstance(autoencoder, RepresentationAutoencoder):
        trained = sum(parameter.numel() for parameter in autoencoder.parameters() if parameter.requires_grad)
        name, digest = autoencoder.config.encoder, autoencoder.config.encoder_digest
        lines.append(f"frozen encoder {name}, digest {digest[:12]}; decoder: {trained:,} parameters train")
    if tables.train != ALL:
        lines.append(_selection(autoencoder, tables))
    if tables.lr_multipliers:
        factors = ", ".join(f"{part} x {factor:g}" for part, factor in tables.lr_multipliers.items())
        lines.append(f"learning rates: {factors}")
    if start is not None:
        lines.append(_latents(tables, start.name))
    return lines


def _selection(autoencoder: TrainableAutoencoder, tables: TrainAE) -> str:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in autoencoder.parameters()]
    trained, total = sum(n for n, trains in counts if trains), sum(n for n, _ in counts)
    saved = saved_bytes(autoencoder, averaged=tables.ema is not None)
    kept = "gradients, moments and averages" if tables.ema else "gradients and moments"
    chosen = tables.train if isinstance(tables.train, str) else ", ".join(tables.train)
    return (
        f"training {chosen}: {trained:,} of {total:,} parameters; no {kept} of the others, which saves {saved / 1e6:,.1f} MB"
        + ("" if tables.trains_encoder else ", and no activations of the encoder")
    )


def _latents(tables: TrainAE, name: str) -> str:
    if not tables.trains_encoder:
        return f"the encoder is frozen: latents stay those of {name}, and transformers trained on them still fit"
    if tables.regularizers.stay is None:
        return (
            f"the encoder trains: transformers trained on the latents of {name} will not fit the new ones "
            '(train = "decoder" keeps latents, [regularizers.stay] keeps them nearby)'
        )
    return f"the encoder trains, and [regularizers.stay] keeps its latents near those of {tables.regularizers.stay.original}"
