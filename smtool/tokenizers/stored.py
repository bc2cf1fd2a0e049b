"""Rebuild a tokenizer from its description in a checkpoint."""

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
from smtool.tokenizers.dct import DCT
from smtool.tokenizers.pixels import Pixels

_STORED: TypeAdapter[StoredConfig | Pixels | NamedControl | DCT] = TypeAdapter(
    Annotated[StoredConfig | Pixels | NamedControl | DCT, Field(discriminator="kind")]
)


def rebuilt(path: Path, description: Mapping[str, Any] | None) -> Tokenizer:
    """The tokenizer of a description; its weights, if any, are not loaded (they are on "meta"). path: for error messages."""
    try:
        config = _STORED.validate_python(description)
    except ValidationError as error:
        raise CheckpointError(
            f"{path} describes a tokenizer that is unknown to this version ({__version__}): {error.errors()[0]['msg']}.",
            hint="Open it with the version that wrote it.",
        ) from error
    with shapes_only():
        return config.build()
