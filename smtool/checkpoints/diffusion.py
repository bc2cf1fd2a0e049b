"""Checkpoint files of diffusion transformers: tensors of the transformer and of its tokenizer, with describing metadata."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from smtool import __version__
from smtool.config import LARGEST_WIDTH
from smtool.errors import CheckpointError
from smtool.storage import read_metadata, read_tensors, tensor_digest, write_tensors

Side = Annotated[int, Field(ge=1, le=LARGEST_WIDTH)]


class _Autoencoder(BaseModel):
    model: dict[str, Any] | None = None
    digest: str
    embedded: bool
    learned_from: list[str] = []


class _Described(BaseModel):
    """The metadata of a checkpoint, as far as smtool computes with it."""

    smtool: str
    digest: str
    recipe: dict[str, Any]
    latent_shape: tuple[Side, Side, Side]
    num_classes: Annotated[int, Field(ge=0)]
    stats: dict[str, Any]
    autoencoder: _Autoencoder
    autoencoder_path: str | None
    step: int | None
    weights: str
    image_size: Side | tuple[Side, Side]
    data: str | None = None
    data_digest: str | None = None
    source: str | None = None
    learned_from: list[str] = []
    loss_weights: list[float] | None = None


KIND = "diffusion"
_NETWORK, _TOKENIZER = "network.", "autoencoder."


def is_diffusion(path: Path) -> bool:
    """Whether a file is a checkpoint of `train-dit`."""
    return path.is_file() and path.suffix == ".safetensors" and read_metadata(path).get("kind") == KIND


def write_diffusion_file(
    path: Path, network: Mapping[str, Tensor], tokenizer: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write a checkpoint. tokenizer: its weights, {} if it has none or they are stored elsewhere."""
    named = {f"{_NETWORK}{name}": tensor for name, tensor in network.items()}
    described = {**metadata, "smtool": __version__, "kind": KIND, "digest": tensor_digest(named)}
    write_tensors(path, {**named, **{f"{_TOKENIZER}{name}": tensor for name, tensor in tokenizer.items()}}, described)


def read_diffusion_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a checkpoint of `train-dit`. Raises CheckpointError for another kind of file or damaged metadata."""
    metadata = read_metadata(path)
    if metadata.get("kind") != KIND:
        found = f"holds kind {metadata['kind']!r}" if "kind" in metadata else "is a safetensors file without smtool's description"
        raise CheckpointError(
            f"{path} {found}, but a diffusion transformer is needed.",
            hint="Pass a ckpt.safetensors that `smtool train-dit` wrote.",
        )
    try:
        _Described.model_validate(metadata)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path} has damaged metadata: {where}: {first['msg']}.", hint="Use the original file.") from error
    return metadata


def read_diffusion_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(tensors of the transformer, tensors of its tokenizer)."""
    tensors = read_tensors(path, device)
    return _behind(_NETWORK, tensors), _behind(_TOKENIZER, tensors)


def _behind(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
