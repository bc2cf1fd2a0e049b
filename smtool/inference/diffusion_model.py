"""Checkpoints of diffusion transformers: transformer, process, latent statistics, and the tokenizer of its latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from smtool import __version__
from smtool.checkpoints.diffusion import (
    is_diffusion,
    read_diffusion_metadata,
    read_diffusion_tensors,
    write_diffusion_file,
)
from smtool.diffusion import Process
from smtool.errors import CheckpointError
from smtool.networks.posterior import LatentStats
from smtool.networks.shapes_only import shapes_only
from smtool.networks.tokenizer import Tokenizer
from smtool.networks.transformer import LatentTransformer, Prediction
from smtool.recipe import TrainDiT
from smtool.storage import parsing, shortened
from smtool.tokenizers import identify, open_tokenizer
from smtool.tokenizers.stored import rebuilt
from smtool.tokenizers.tiled import tiled


@dataclass(frozen=True)
class Guide:
    """A weaker model whose prediction guides another's. path: name that it was opened with; metadata: of its file."""

    network: LatentTransformer
    path: str
    metadata: Mapping[str, Any]

    def __call__(self, x: Tensor, time: Tensor, labels: Tensor | None) -> Prediction:
        """Its prediction; a network without classes gets no labels."""
        prediction: Prediction = self.network(x, time, labels if self.network.num_classes else None)
        return prediction


@dataclass(frozen=True)
class DiffusionModel:
    """Everything that sampling needs: the sampled latents of network and process are denormalized by stats and decoded.

    tables: the recipe of its training. latent_shape: (C, h, w). num_classes: 0 for an unconditional network. metadata: of the
    file: step, digests, data. guide: takes the place of the null class in guidance.
    """

    tables: TrainDiT
    network: LatentTransformer
    process: Process
    stats: LatentStats
    autoencoder: Tokenizer
    latent_shape: tuple[int, int, int]
    num_classes: int
    metadata: Mapping[str, Any]
    guide: Guide | None = None


def in_tiles(model: DiffusionModel, tile: int | None) -> DiffusionModel:
    """The model with a tokenizer that decodes tiles of `tile` pixels; the model itself for None. Errors: see `tiled`."""
    return replace(model, autoencoder=tiled(model.autoencoder, tile))


def write_diffusion(path: Path, model: DiffusionModel, *, recipe: Mapping[str, Any]) -> None:
    """Write a checkpoint. The weights of a tokenizer that smtool can rebuild are included if latents.embed is true; of other
    tokenizers, only name and digest are stored.

    model.metadata: of the run: step, data, data_digest, image_size, image_channels, weights, autoencoder_path.
    """
    tokenizer = model.autoencoder
    config, weights = tokenizer.config, tokenizer.state_dict()
    embedded = config is not None and (model.tables.latents.embed or not weights)
    metadata = {
        **model.metadata,
        "recipe": recipe,
        "latent_shape": list(model.latent_shape),
        "num_classes": model.num_classes,
        "stats": model.stats.to_metadata(),
        "autoencoder": {
            "model": None if config is None else config.model_dump(mode="json", exclude={"init"}),
            "digest": tokenizer.digest,
            "embedded": embedded,
            "learned_from": list(tokenizer.learned_from),
        },
    }
    write_diffusion_file(path, model.network.state_dict(), weights if embedded else {}, metadata)


def find_diffusion(what: str) -> Path:
    """The checkpoint file for a path, a run folder, or the name of a run under runs/. Raises CheckpointError without one."""
    if (path := Path(what)).is_file():
        return path
    try:
        found = identify(what).path
    except CheckpointError:
        found = None
    if found is not None and found.is_file():
        return found
    raise CheckpointError(f"{what}: no checkpoint here.", hint="Pass a run folder or the ckpt.safetensors of `smtool train-dit`.")


def resumed_latents(path: Path, place: str, tokenizer: Tokenizer) -> LatentStats | None:
    """The latent statistics in the checkpoint of a resumed run, after checking that its tokenizer is unchanged.

    place: name of the tokenizer, for messages. Returns None if there is no such file. Raises CheckpointError if the tokenizer
    differs, because the transformer was trained on other latents.
    """
    if not is_diffusion(path):
        return None
    metadata = read_diffusion_metadata(path)
    if metadata["autoencoder"]["digest"] != tokenizer.digest:
        raise CheckpointError(
            f"{place} is not the autoencoder that {path.parent} was started with: its digest differs.",
            hint="Restore that autoencoder, start over with --fresh, or use another folder with --out.",
        )
    return _stats(path, metadata["stats"], metadata["latent_shape"])


def read_diffusion(path: Path, device: str = "cpu") -> DiffusionModel:
    """Load the model of a checkpoint, ready to sample on a device.

    Raises CheckpointError for another kind of file, for a recipe of another version, and if the tokenizer has changed.
    """
    metadata = read_diffusion_metadata(path)
    try:
        tables = TypeAdapter(TrainDiT).validate_python(metadata["recipe"])
    except ValidationError as error:
        raise CheckpointError(
            f"{path} was written by smtool {metadata.get('smtool')}, whose recipe this version ({__version__}) cannot read: "
            f"{error.errors()[0]['msg']}.",
            hint="Open it with the version that wrote it.",
        ) from error
    weights, tokenizer_weights = read_diffusion_tensors(path, device)
    channels, height, width = metadata["latent_shape"]
    with parsing(path), shapes_only():
        network = tables.model.build((channels, height, width), metadata["num_classes"])
    _load(path, network, weights)
    return DiffusionModel(
        tables,
        network.eval().requires_grad_(False),
        tables.process.build((channels, height, width)),
        _stats(path, metadata["stats"], metadata["latent_shape"]),
        _tokenizer(path, metadata, tokenizer_weights, device),
        (channels, height, width),
        metadata["num_classes"],
        metadata,
    )


def _tokenizer(path: Path, metadata: Mapping[str, Any], weights: Mapping[str, Tensor], device: str) -> Tokenizer:
    """The tokenizer in the file, or else the named one, whose digest must be the same as in training."""
    described, place = metadata["autoencoder"], metadata["autoencoder_path"]
    if described["embedded"]:
        tokenizer = rebuilt(path, described.get("model"))
        _load(path, tokenizer, weights)
        tokenizer.source, tokenizer.learned_from = place, tuple(described.get("learned_from", ()))
        return tokenizer.to(device).eval().requires_grad_(False)
    channels = metadata.get("image_channels", 3)
    tokenizer = open_tokenizer(place, device=device, image_size=metadata["image_size"], image_channels=channels)
    if tokenizer.digest != described["digest"]:
        raise CheckpointError(
            f"{place} is not the autoencoder that {path} was trained on: its digest differs.",
            hint="Restore that autoencoder" + (", or train with latents.embed = true." if tokenizer.config else "."),
        )
    return tokenizer


def _stats(path: Path, described: dict[str, Any], shape: Sequence[int]) -> LatentStats:
    with parsing(path):
        stats = LatentStats.from_metadata(described)
        channels, height, width = shape
        if not stats.fits((channels, height, width)):
            measured = f"{len(stats.mean)} channels" if stats.mean.ndim == 1 else "x".join(map(str, stats.mean.shape))
            raise ValueError(f"statistics of {measured} for latents of {channels}x{height}x{width}")
        return stats


def _load(path: Path, module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = shortened(str(error).splitlines()[-1].strip())
        raise CheckpointError(f"{path} does not hold the weights that it describes ({reason}).") from error
