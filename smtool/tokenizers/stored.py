"""Tokenizers that smtool rebuilds from what a checkpoint says of them, with the weights in it if they have any."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from smtool import __version__
from smtool.checkpoints.autoencoder import StoredConfig
from smtool.errors import CheckpointError
from smtool.networks.shapes_only import shapes_only
from smtool.networks.tokenizer import Tokenizer
from smtool.tokenizers.controls import NamedControl
from smtool.tokenizers.pixels import Pixels

_STORED: TypeAdapter[StoredConfig | Pixels | NamedControl] = TypeAdapter(
    Annotated[StoredConfig | Pixels | NamedControl, Field(discriminator="kind")]
)


def rebuilt(path: Path, description: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer without its weights, on the meta device; one without weights is whole. `path` is named in errors."""
    try:
        config = _STORED.validate_python(description)
    except ValidationError as error:
        raise CheckpointError(
            f"{path} describes a tokenizer that this version ({__version__}) does not know: {error.errors()[0]['msg']}.",
            hint="Open it with the version that wrote it.",
        ) from error
    with shapes_only():
        return config.build()
