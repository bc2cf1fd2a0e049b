"""The published file that an autoencoder was fine-tuned from, and how to write the result in the same form.

The result has the names, shapes and number formats of the original's tensors, so that it replaces the original everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smtool.checkpoints.foreign.detect import detect
from smtool.checkpoints.foreign.diffusers import DIFFUSERS, read_config, weights_in
from smtool.checkpoints.foreign.export_diffusers import normalization
from smtool.checkpoints.foreign.taesd import half_of, halves
from smtool.checkpoints.tensor_file import TensorFile
from smtool.errors import CheckpointError
from smtool.networks.posterior import LatentStats
from smtool.storage import write_json, write_tensors

PATCH_MEAN, PATCH_VARIANCE = "bn.running_mean", "bn.running_var"
"""FLUX.2's batch norm of 2x2 patches of latents, which its pipeline uses in place of scale and shift."""


@dataclass(frozen=True)
class Origin:
    """place: path of the original file or folder; digest: of the original autoencoder.

    patch_mean, patch_variance: (4 C,), statistics of 2x2 patches of the new latents, measured if the original has such; else
    None.
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


def has_patch_norm(place: Path) -> bool:
    """Whether the original normalizes 2x2 patches of latents by a batch norm, as FLUX.2 does."""
    return any(f"{prefix}{PATCH_MEAN}" in file.shapes for file, prefix, _ in _parts(place))


def write_like(origin: Origin, weights: Mapping[str, Tensor], stats: LatentStats | None, folder: Path) -> list[Path]:
    """Write the weights (smtool's names) to files with the names, shapes and number formats of the original's tensors.

    Statistics go to config.json, beside the other keys of the original's; a pickle becomes a safetensors file. Tensors of the
    original's files that belong to no autoencoder are left out. Returns the written files. Raises CheckpointError if the original
    is gone.
    """
    place = Path(origin.place)
    if not place.exists():
        raise CheckpointError(
            f"{place}, from which this autoencoder was fine-tuned, does not exist any more.",
            hint="Restore it, or use --to diffusers or --to smtool.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file, prefix, names in _parts(place):
        tensors = {
            old: weights[own].reshape(file.shapes[old]).to(file.dtype_of(old)) for old, own in names.items() if own in weights
        }
        written.append(folder / f"{Path(file.path.name.removesuffix('.index.json')).stem}.safetensors")      # of shards: one file
        write_tensors(written[-1], {**tensors, **_patch_norm(file, prefix, origin)}, {"format": "pt"})
    beside = _config_of(place)
    if len(written) == 1 and (beside is not None or stats is not None):      # the pair of TAESD has no config.json
        config = {"_class_name": "AutoencoderKL"} if beside is None else read_config(beside)
        written.append(folder / "config.json")
        write_json(written[-1], {**config, **({} if origin.patch_mean else normalization(stats))})
    return written


def _parts(place: Path) -> list[tuple[TensorFile, str, dict[str, str]]]:
    """The files of the original: (file, prefix of the autoencoder's names, name in the file -> smtool's name)."""
    if place.is_dir():
        file = TensorFile(weights_in(place))
        return [(file, "", DIFFUSERS.our_names(name for name in file.shapes if not name.startswith("bn.")))]
    file = TensorFile(place)
    if half_of(file.shapes) is not None:
        return [(half, "", {name: f"{side}.{name}" for name in half.shapes}) for side, half in halves(file).items()]
    config = _config_of(place)
    found = detect(place, file.shapes, norm_groups=read_config(config).get("norm_num_groups") if config else None)
    plain = [name.removeprefix(found.prefix) for name in file.shapes if name.startswith(found.prefix)]
    renamed = found.family.our_names(name for name in plain if not name.startswith("bn."))
    return [(file, found.prefix, {f"{found.prefix}{old}": own for old, own in renamed.items()})]


def _config_of(place: Path) -> Path | None:
    path = (place if place.is_dir() else place.parent) / "config.json"
    return path if path.is_file() else None


def _patch_norm(file: TensorFile, prefix: str, origin: Origin) -> dict[str, Tensor]:
    """The batch norm of 2x2 patches: measured anew, or as in the original's file if latents are unchanged."""
    names = {name: name for name in file.shapes if name.startswith(f"{prefix}bn.")}
    tensors = {name: tensor.to(file.dtype_of(name)) for name, tensor in file.read(names).items()}
    if origin.patch_mean is not None:
        for name, values in ((PATCH_MEAN, origin.patch_mean), (PATCH_VARIANCE, origin.patch_variance)):
            tensors[f"{prefix}{name}"] = torch.tensor(values, dtype=tensors[f"{prefix}{name}"].dtype)
    return tensors
