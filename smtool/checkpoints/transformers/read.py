"""Read a published transformer from a file of any known family."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from smtool.checkpoints.tensor_file import TensorFile
from smtool.checkpoints.transformers import dctdiff, dit_dh, lightning_dit, sit, uvit
from smtool.checkpoints.transformers.published import PublishedTransformer
from smtool.errors import CheckpointError
from smtool.networks.shapes_only import shapes_only

_READERS = (dit_dh, lightning_dit, sit, uvit, dctdiff)      # of two that fit, the first
_PLACES = {"ema.": True, "nnet_ema.": True, "model.": False, "state_dict.": None, "": None}
"""Prefixes of weights in files, in order of preference -> whether the weights are an average (None: unknown)."""
_KNOWN = (
    "SiT (x_embedder., blocks.), REPA (the same with projectors.), LightningDiT (mlp.w12), DiT-DH (s_embedder.), "
    "U-ViT (patch_embed., in_blocks.) "
    "and DCTdiff (proj., in_blocks.)"
)


def is_transformer(names: Collection[str]) -> bool:
    """Whether a file with these names of tensors holds a transformer of a known family."""
    return any(_has(names, place) for place in _PLACES)


def read_transformer(path: Path, *, heads: int | None = None) -> PublishedTransformer:
    """Read a .pt, .pth or .safetensors file; of several sets of weights, the average. Raises CheckpointError.

    heads: number of attention heads, which shapes do not determine; required for sizes that are not published.
    """
    place, tensors = _weights(path)
    reader = next(reader for reader in _READERS if all(mark in tensors for mark in reader.MARKS))
    name = reader.NAME
    try:
        name = reader.family(tensors)
        found = reader.published(tensors, heads)
    except (KeyError, IndexError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"{error} is missing or has a wrong shape"
        raise CheckpointError(f"{path} looks like {name}, but is incomplete or of an unknown form: {reason}.") from error
    kept = {name: value for name, value in found.tensors.items() if not name.startswith("projectors.")}
    found = replace(found, averaged=_PLACES[place], tensors=kept)
    _check(path, found)
    return found


def _has(names: Collection[str], place: str) -> bool:
    """Whether the names behind a prefix are those of a known family."""
    return any(all(f"{place}{mark}" in names for mark in reader.MARKS) for reader in _READERS)


def _weights(path: Path) -> tuple[str, dict[str, Tensor]]:
    """(prefix, tensors as float32) of the preferred set of weights in the file."""
    file = TensorFile(path)
    for place in _PLACES:
        if _has(file.shapes, place):
            return place, file.read({name: name.removeprefix(place) for name in file.shapes if name.startswith(place)})
    found = ", ".join(sorted({name.split(".")[0] for name in file.shapes})[:6]) or "no tensors"
    raise CheckpointError(f"{path} holds {found}: not a known transformer.", hint=f"Known are {_KNOWN}.")


def _check(path: Path, published: PublishedTransformer) -> None:
    """Raise CheckpointError unless names and shapes are exactly those of the network, so that no variant is accepted."""
    with shapes_only():
        expected = published.config.build(published.latent_shape, published.num_classes).state_dict()
    names = sorted(expected.keys() ^ published.tensors.keys())
    names += [name for name in expected if name not in names and expected[name].shape != published.tensors[name].shape]
    if names:
        name = names[0]
        what = "lacks" if name not in published.tensors else "has" if name not in expected else "has another shape of"
        raise CheckpointError(
            f"{path} is read as {published.description}, but {what} {name} ({len(names)} such differences).",
            hint="It is a variant of the published network, which is not supported.",
        )
