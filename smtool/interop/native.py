"""Our own autoencoder checkpoints: one safetensors file under diffusers' key names, described by its metadata."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from smtool import __version__
from smtool.errors import CheckpointError
from smtool.networks.autoencoder import SDVAE, Autoencoder
from smtool.networks.posterior import LatentStats
from smtool.storage import read_metadata, read_tensors, tensor_digest, write_tensors


def write_autoencoder(path: Path, autoencoder: Autoencoder, metadata: Mapping[str, Any]) -> None:
    """Write weights, architecture, statistics and digest; `metadata` adds what the run knows ("recipe", "step", "data")."""
    described = {
        "smtool": __version__,
        "kind": "autoencoder",
        "model": autoencoder.section.model_dump(mode="json"),
        "stats": None if autoencoder.stats is None else autoencoder.stats.to_metadata(),
        "digest": autoencoder_digest(autoencoder),
    }
    write_tensors(path, autoencoder.state_dict(), {**metadata, **described})


def read_autoencoder(path: Path, device: str = "cpu") -> Autoencoder:
    """The autoencoder of a file that `write_autoencoder` wrote."""
    metadata = read_metadata(path)
    section = _section(path, metadata)
    autoencoder = assemble(path, section, read_tensors(path, device))
    if metadata.get("stats") is not None:
        autoencoder.stats = LatentStats.from_metadata(metadata["stats"])
    return autoencoder


def autoencoder_digest(autoencoder: Autoencoder) -> str:
    """sha256 over the weights and over what changes the function without changing a weight's name or shape."""
    section = autoencoder.section
    weights = tensor_digest(autoencoder.state_dict())
    return hashlib.sha256(f"{weights}|{section.downsample_pad}|{section.norm_groups}".encode()).hexdigest()


def assemble(path: Path, section: SDVAE, tensors: Mapping[str, Tensor]) -> Autoencoder:
    """An autoencoder that adopts these tensors as its weights, without initializing any; `path` is named in errors."""
    with torch.device("meta"):
        autoencoder = section.build()
    expected = {name: tuple(value.shape) for name, value in autoencoder.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if problems := _differences(expected, found):
        raise CheckpointError(
            f"{path}: the weights do not fit the architecture it states.\n  " + "\n  ".join(problems),
            hint="The file was changed after it was written, or describes another network; take the original file.",
        )
    autoencoder.load_state_dict(dict(tensors), assign=True)
    return autoencoder


def _section(path: Path, metadata: Mapping[str, Any]) -> SDVAE:
    kind = metadata.get("kind")
    if kind != "autoencoder" or "model" not in metadata:
        found = f"holds kind {kind!r}" if kind else "is a safetensors file without our description"
        raise CheckpointError(
            f"{path} {found}, but an autoencoder is needed.",
            hint="Pass a ckpt.safetensors written by `smtool train-ae`, or the folder of a diffusers AutoencoderKL.",
        )
    try:
        return SDVAE.model_validate(metadata["model"])
    except ValidationError as error:
        raise CheckpointError(
            f"{path} describes an architecture that this version ({__version__}) does not know: {error.errors()[0]['msg']}",
            hint=f"It was written by smtool {metadata.get('smtool', 'of unknown version')}; open it with that version.",
        ) from error


def _differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    strangers = {"missing": sorted(expected.keys() - found.keys()), "unexpected": sorted(found.keys() - expected.keys())}
    reshaped = [name for name in sorted(expected.keys() & found.keys()) if expected[name] != found[name]]
    lines = [f"{len(names)} {what}, first {names[0]}" for what, names in strangers.items() if names]
    if reshaped:
        name = reshaped[0]
        lines.append(f"{len(reshaped)} of another shape, first {name}: {found[name]} instead of {expected[name]}")
    return lines
