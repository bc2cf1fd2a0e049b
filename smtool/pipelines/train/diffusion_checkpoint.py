"""Checkpoints of diffusion transformers: the transformer, the autoencoder that made its latents, and how to sample."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from smtool import __version__
from smtool.diffusion import Process
from smtool.errors import CheckpointError
from smtool.interop import load_autoencoder
from smtool.interop.native import autoencoder_digest
from smtool.networks.autoencoder import SDVAE, Autoencoder
from smtool.networks.posterior import LatentStats
from smtool.networks.transformer import LatentTransformer
from smtool.recipe import TrainDiT
from smtool.storage import read_metadata, read_tensors, tensor_digest, write_tensors

KIND = "diffusion"


@dataclass(frozen=True)
class DiffusionModel:
    """Everything `sample` needs: noise goes through network and process, is denormalized by stats, and decoded.

    tables: the recipe it was trained by. latent_shape: (C, h, w). num_classes: 0 for an unconditional network. metadata: as
    stored: step, digests, data.
    """

    tables: TrainDiT
    network: LatentTransformer
    process: Process
    stats: LatentStats
    autoencoder: Autoencoder
    latent_shape: tuple[int, int, int]
    num_classes: int
    metadata: Mapping[str, Any]


def write_diffusion(path: Path, model: DiffusionModel, *, recipe: Mapping[str, Any]) -> None:
    """Write a checkpoint; with latents.embed the autoencoder's weights go in too, else its digest and where it lies.

    model.metadata: what the run knows: step, data, data_digest, image_size, weights, autoencoder_path.
    """
    embed = model.tables.latents.embed
    network = {f"network.{name}": tensor for name, tensor in model.network.state_dict().items()}
    autoencoder = {f"autoencoder.{name}": tensor for name, tensor in model.autoencoder.state_dict().items()}
    metadata = {
        **model.metadata,
        "smtool": __version__,
        "kind": KIND,
        "recipe": recipe,
        "latent_shape": list(model.latent_shape),
        "num_classes": model.num_classes,
        "stats": model.stats.to_metadata(),
        "autoencoder": {
            "model": model.autoencoder.section.model_dump(mode="json"),
            "digest": autoencoder_digest(model.autoencoder),
            "embedded": embed,
        },
        "digest": tensor_digest(network),
    }
    write_tensors(path, {**network, **(autoencoder if embed else {})}, metadata)


def is_diffusion(path: Path) -> bool:
    """Whether a file holds a checkpoint of `train-dit`."""
    return path.is_file() and path.suffix == ".safetensors" and read_metadata(path).get("kind") == KIND


def find_diffusion(what: str) -> Path:
    """The checkpoint of a path, of a run folder, or of a run's name under runs/."""
    for path in (Path(what), Path(what) / "ckpt.safetensors", Path("runs") / what / "ckpt.safetensors"):
        if path.is_file():
            return path
    raise CheckpointError(f"{what}: no checkpoint here.", hint="Pass a run folder or the ckpt.safetensors of `smtool train-dit`.")


def resumed_latents(path: Path, place: Path, autoencoder: Autoencoder) -> LatentStats | None:
    """The statistics in the checkpoint of a run that goes on, after a check that `autoencoder`, of `place`, is still its own.

    None where there is no such file; CheckpointError for another autoencoder, whose latents the transformer does not know.
    """
    if not is_diffusion(path):
        return None
    metadata = read_metadata(path)
    if metadata["autoencoder"]["digest"] != autoencoder_digest(autoencoder):
        raise CheckpointError(
            f"{place} is not the autoencoder that {path.parent} was begun on: its digest differs.",
            hint="Put that autoencoder back; or start over with --fresh, or elsewhere with --out.",
        )
    return LatentStats.from_metadata(metadata["stats"])


def read_diffusion(path: Path, device: str = "cpu") -> DiffusionModel:
    """The model of a checkpoint, ready to sample on a device. Raises CheckpointError for one of another kind."""
    metadata = read_metadata(path)
    if metadata.get("kind") != KIND:
        found = f"holds kind {metadata['kind']!r}" if "kind" in metadata else "is a safetensors file without our description"
        raise CheckpointError(
            f"{path} {found}, but a diffusion transformer is needed.",
            hint="Pass a ckpt.safetensors that `smtool train-dit` wrote.",
        )
    try:
        tables = TypeAdapter(TrainDiT).validate_python(metadata["recipe"])
    except ValidationError as error:
        raise CheckpointError(
            f"{path} was written by smtool {metadata.get('smtool')}, whose recipe this version ({__version__}) does not know: "
            f"{error.errors()[0]['msg']}.",
            hint="Open it with the version that wrote it.",
        ) from error
    tensors = read_tensors(path, device)
    channels, height, width = metadata["latent_shape"]
    with torch.device("meta"):
        network = tables.model.build((channels, height, width), metadata["num_classes"])
    _load(path, network, tensors, "network.")
    return DiffusionModel(
        tables,
        network.eval().requires_grad_(False),
        tables.process.build(),
        LatentStats.from_metadata(metadata["stats"]),
        _autoencoder(path, metadata, tensors, device),
        (channels, height, width),
        metadata["num_classes"],
        metadata,
    )


def _autoencoder(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], device: str) -> Autoencoder:
    """The embedded autoencoder, or the one that was pointed to, whose digest must still be the same."""
    described = metadata["autoencoder"]
    if described["embedded"]:
        with torch.device("meta"):
            autoencoder = SDVAE.model_validate(described["model"]).build()
        _load(path, autoencoder, tensors, "autoencoder.")
    else:
        autoencoder = load_autoencoder(metadata["autoencoder_path"], device=device)
        if autoencoder_digest(autoencoder) != described["digest"]:
            raise CheckpointError(
                f"{metadata['autoencoder_path']} is not the autoencoder that {path} was trained on: its digest differs.",
                hint="Put that autoencoder back, or train with latents.embed = true.",
            )
    return autoencoder.eval().requires_grad_(False)


def _load(path: Path, module: torch.nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    part = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(part, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path} does not hold the weights that it describes ({reason}).") from error
