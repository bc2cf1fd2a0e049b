"""The published file that an autoencoder was fine-tuned from, and how to write the result in the same form.

The result has the names, shapes and number formats of the original's tensors, in files of the same names, so that it replaces the
original everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smtool.checkpoints.foreign.dc_ae import DC_AE, fused, is_by_authors, is_dc_ae, names_in
from smtool.checkpoints.foreign.detect import detect
from smtool.checkpoints.foreign.diffusers import DIFFUSERS, OURS, class_of, read_config, weights_in
from smtool.checkpoints.foreign.export_diffusers import described, normalization
from smtool.checkpoints.foreign.patch_norm import EPS, PATCH_MEAN, PATCH_VARIANCE, patch_norm
from smtool.checkpoints.foreign.settings import AS_STATED, Settings
from smtool.checkpoints.foreign.taesd import half_of, halves
from smtool.checkpoints.tensor_file import TensorFile
from smtool.errors import CheckpointError
from smtool.networks.dc_ae import DeepCompressionAutoencoder
from smtool.networks.sd_vae import Autoencoder
from smtool.networks.trainable import TrainableAutoencoder
from smtool.storage import write_json, write_tensors


@dataclass(frozen=True)
class Origin:
    """place: path of the original file or folder, with the settings given behind it, or its name on the hub; digest: of the
    original autoencoder.

    patch_mean, patch_variance: (4 C,), statistics of 2x2 patches of the new latents in files of earlier versions; newer files
    have them as LatentStats.
    """

    place: str
    digest: str
    patch_mean: tuple[float, ...] | None = None
    patch_variance: tuple[float, ...] | None = None

    def to_metadata(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_metadata(cls, value: Mapping[str, Any]) -> "Origin":
        mean, variance = (tuple(value[key]) if key in value else None for key in ("patch_mean", "patch_variance"))
        return cls(value["place"], value["digest"], mean, variance)


@dataclass(frozen=True)
class _Part:
    """One file of an original. prefix: of the autoencoder's names; names: name in the file -> smtool's name."""

    file: TensorFile
    prefix: str
    names: Mapping[str, str]


def has_patch_norm(path: Path, settings: Settings = AS_STATED) -> bool:
    """Whether the original normalizes 2x2 patches of latents by a batch norm, as FLUX.2 does."""
    return any(f"{part.prefix}{PATCH_MEAN}" in part.file.shapes for part in _parts(path, settings))


def write_like(
    origin: Origin, path: Path, autoencoder: TrainableAutoencoder, folder: Path, *, settings: Settings = AS_STATED
) -> list[Path]:
    """Write an autoencoder to files with the names, shapes and number formats of the original's tensors; shards stay shards.

    path: the original's file or folder; settings: those given behind its name. Statistics go to config.json, beside the other
    keys of the original's, or to FLUX.2's batch norm; a pickle becomes a safetensors file. Tensors of the original's files that
    belong to no autoencoder are left out. Returns the written files. Raises CheckpointError if the original is now another
    network.
    """
    parts = _parts(path, settings)
    weights = fused(autoencoder.state_dict()) if is_by_authors(parts[0].file) else autoencoder.state_dict()
    _refuse_another(path, parts, weights)
    folder.mkdir(parents=True, exist_ok=True)
    beside = _config_of(path)
    config = described(autoencoder) if isinstance(autoencoder, Autoencoder) else {}
    config = config if beside is None else read_config(beside)
    written = []
    for part in parts:
        tensors = {
            part.file.stored_name(old): weights[own].reshape(part.file.shapes[old]).to(part.file.dtype_of(old))
            for old, own in part.names.items() if own in weights
        }
        tensors |= _batch_norm(part, origin, autoencoder, config.get("batch_norm_eps") or EPS)
        written += _write(folder, part.file, tensors)
    described_here = isinstance(autoencoder, Autoencoder) and autoencoder.stats is not None
    if isinstance(autoencoder, Autoencoder | DeepCompressionAutoencoder) and (beside is not None or described_here):
        written.append(folder / "config.json")
        write_json(written[-1], {**config, **({} if origin.patch_mean else normalization(autoencoder.stats))})
    return written


def _write(folder: Path, file: TensorFile, tensors: Mapping[str, Tensor]) -> list[Path]:
    if file.sharded is not None:
        return file.sharded.write_like(folder, tensors)
    path = folder / f"{file.path.stem}.safetensors"
    write_tensors(path, tensors, {"format": "pt"})
    return [path]


def _parts(path: Path, settings: Settings) -> list[_Part]:
    if path.is_dir():
        file = TensorFile(weights_in(path))
        return [_Part(file, "", DIFFUSERS.our_names(name for name in file.shapes if not name.startswith("bn.")))]
    file = TensorFile(path)
    if is_dc_ae(file):
        return [_Part(file, "", names_in(file))]
    if half_of(file.shapes) is not None:
        return [_Part(half, "", {name: f"{side}.{name}" for name in half.shapes}) for side, half in halves(file).items()]
    config = _config_of(path)
    groups = settings.norm_groups or (read_config(config).get("norm_num_groups") if config else None)
    found = detect(path, file.shapes, norm_groups=groups)
    plain = [name.removeprefix(found.prefix) for name in file.shapes if name.startswith(found.prefix)]
    renamed = found.family.our_names(name for name in plain if not name.startswith("bn."))
    return [_Part(file, found.prefix, {f"{found.prefix}{old}": own for old, own in renamed.items()})]


def _refuse_another(path: Path, parts: list[_Part], weights: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless the files have all weights, with as many values."""
    sizes = {own: torch.Size(part.file.shapes[old]).numel() for part in parts for old, own in part.names.items()}
    if wrong := [name for name, weight in weights.items() if sizes.get(name) != weight.numel()]:
        raise CheckpointError(
            f"{path}, from which this autoencoder was fine-tuned, is another network now: {wrong[0]} has "
            f"{sizes.get(wrong[0], 0):,} values there, {weights[wrong[0]].numel():,} here.",
            hint="Restore it, or use --to diffusers or --to smtool.",
        )


def _config_of(path: Path) -> Path | None:
    """The config.json of an original; None without one, and for one that describes something else than this file beside it."""
    config = (path if path.is_dir() else path.parent) / "config.json"
    return config if config.is_file() and (path.is_dir() or class_of(config) in (*OURS, DC_AE)) else None


def _batch_norm(part: _Part, origin: Origin, autoencoder: TrainableAutoencoder, eps: float) -> dict[str, Tensor]:
    """The batch norm of 2x2 patches under the file's names: measured anew, or the original's if latents are unchanged."""
    names = {name: name for name in part.file.shapes if name.startswith(f"{part.prefix}bn.")}
    tensors = part.file.read(names)
    stats = autoencoder.stats
    anew: dict[str, Tensor] = {}
    if origin.patch_mean is not None:
        anew = {PATCH_MEAN: torch.tensor(origin.patch_mean), PATCH_VARIANCE: torch.tensor(origin.patch_variance)}
    elif stats is not None and stats.kind == "patch" and stats.count:
        anew = patch_norm(stats, autoencoder.latent_channels, eps)
    tensors |= {f"{part.prefix}{name}": values for name, values in anew.items() if f"{part.prefix}{name}" in names}
    return {part.file.stored_name(name): tensor.to(part.file.dtype_of(name)) for name, tensor in tensors.items()}
