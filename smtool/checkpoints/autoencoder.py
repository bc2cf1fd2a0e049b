"""Autoencoder checkpoints of smtool: a safetensors file with a description in its metadata; diffusers' key names for SD-VAEs."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError

from smtool import __version__
from smtool.checkpoints.assemble import assemble
from smtool.errors import CheckpointError
from smtool.features.encoder import supply_encoder
from smtool.networks.dc_ae import DCAE
from smtool.networks.epsilon_vae import EpsilonVAE
from smtool.networks.posterior import LatentStats
from smtool.networks.rae import RAE
from smtool.networks.sd_vae import SDVAE
from smtool.networks.taesd import TAESD
from smtool.networks.tokenizer import Tokenizer
from smtool.networks.trainable import TrainableAutoencoder
from smtool.storage import parsing, read_metadata, read_tensors, write_tensors

StoredConfig = Annotated[SDVAE | TAESD | DCAE | RAE | EpsilonVAE, Field(discriminator="kind")]
"""Configs of the networks that such a file can contain."""
_SECTION: TypeAdapter[SDVAE | TAESD | DCAE | RAE | EpsilonVAE] = TypeAdapter(StoredConfig)


def write_autoencoder(
    path: Path, autoencoder: TrainableAutoencoder, metadata: Mapping[str, Any], *, dtype: torch.dtype | None = None
) -> None:
    """Write weights, architecture, statistics and digest. metadata: further entries of the run ("recipe", "step", "data").

    dtype: of the stored weights. It must hold their values exactly, since the digest is that of the weights in memory.
    """
    described = {
        "smtool": __version__,
        "kind": "autoencoder",
        "model": autoencoder.config.model_dump(mode="json", exclude={"init"}),
        "stats": None if autoencoder.stats is None else autoencoder.stats.to_metadata(),
        "digest": autoencoder.digest,
    }
    weights = {
        name: tensor.to(dtype if dtype and tensor.is_floating_point() else tensor.dtype)
        for name, tensor in autoencoder.state_dict().items()
    }
    write_tensors(path, weights, {**metadata, **described})


def read_autoencoder(
    path: Path,
    device: str = "cpu",
    settings: Mapping[str, Any] = MappingProxyType({}),
    *,
    weights_dir: Path | None = None,
) -> Tokenizer:
    """Read a file of `write_autoencoder`, in float32. settings: override what the file states (downsample_pad, padding).

    weights_dir: searched first for the frozen encoder of an RAE. Raises CheckpointError, and WeightsError without that encoder.
    """
    metadata = read_metadata(path)
    config = _section(path, metadata)
    if settings and isinstance(config, SDVAE):
        config = config.model_copy(update=dict(settings))
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in read_tensors(path, device).items()
    }
    autoencoder = assemble(path, config, tensors)
    if metadata.get("stats") is not None:
        with parsing(path):
            autoencoder.stats = LatentStats.from_metadata(metadata["stats"])
    supply_encoder(autoencoder, weights_dir, path=path)
    return autoencoder


def _section(path: Path, metadata: Mapping[str, Any]) -> SDVAE | TAESD | DCAE | RAE | EpsilonVAE:
    kind = metadata.get("kind")
    if kind != "autoencoder" or "model" not in metadata:
        found = f"holds kind {kind!r}" if kind else "is a safetensors file without smtool's description"
        raise CheckpointError(
            f"{path} {found}, but an autoencoder is needed.",
            hint="Pass a ckpt.safetensors written by `smtool train-ae`, or the folder of a diffusers AutoencoderKL.",
        )
    try:
        return _SECTION.validate_python(metadata["model"])
    except ValidationError as error:
        raise CheckpointError(
            f"{path} describes an architecture that is unknown to this version ({__version__}): {error.errors()[0]['msg']}",
            hint=f"It was written by smtool {metadata.get('smtool', 'of unknown version')}; open it with that version.",
        ) from error
