"""A single file of weights of another tool: diffusers, LDM (SD, FLUX, VA-VAE, EQ-VAE), or the paper's released trainer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smtool.checkpoints.assemble import assemble
from smtool.checkpoints.foreign.detect import Detected, detect
from smtool.checkpoints.foreign.diffusers import OURS, class_of, read_config, stats_of, unknown_keys
from smtool.checkpoints.foreign.ldm import stats_beside
from smtool.checkpoints.foreign.settings import AS_STATED, Settings, padding_by_name
from smtool.checkpoints.tensor_file import TensorFile
from smtool.errors import CheckpointError
from smtool.networks.sd_vae import Autoencoder
from smtool.storage import parsing


def read_weights(path: Path, device: str = "cpu", settings: Settings = AS_STATED) -> Autoencoder:
    """The KL autoencoder in a file, with the architecture inferred from names and shapes.

    A diffusers config.json in the same folder adds what shapes do not determine: norm groups, padding, scale and shift; settings
    come before it. FLUX.2's batch norm in the file gives LatentStats, and a diffusion model in the file identifies the family and
    so the scale. Without any of them there are no LatentStats, because the autoencoders of SD and SDXL, and of SD3 and FLUX, have
    the same shapes.
    """
    file, config = TensorFile(path), _config_beside(path)
    found = detect(
        path,
        file.shapes,
        norm_groups=settings.norm_groups or config.get("norm_num_groups"),
        downsample_pad=settings.downsample_pad or config.get("downsample_pad"),
        padding=settings.padding or config.get("padding") or padding_by_name(path),
    )
    _agree(path, config, found)
    autoencoder = assemble(path, found.config, file.read(found.names, device))
    with parsing(path.parent / "config.json"):
        autoencoder.stats = stats_of(config, file, found.config.latent_channels, found.prefix)
    if "scaling_factor" not in config:
        autoencoder.stats = autoencoder.stats or stats_beside(file, found.prefix)
    return autoencoder


def _config_beside(path: Path) -> dict[str, Any]:
    beside = path.parent / "config.json"
    return read_config(beside) if beside.is_file() and class_of(beside) in OURS else {}


def _agree(path: Path, config: Mapping[str, Any], found: Detected) -> None:
    """Raise CheckpointError if config.json belongs to another model, since its scale would be wrong."""
    network = found.config
    shown = {"block_out_channels": list(network.channels), "latent_channels": network.latent_channels}
    shown |= {"decoder_block_out_channels": list(network.decoder_channels) or None}
    shown |= {"mid_block_add_attention": network.mid_attention}
    shown |= dict.fromkeys(("in_channels", "out_channels"), network.image_channels)
    shown = {key: value for key, value in shown.items() if config.get(key, value) != value}
    problems = unknown_keys(config) + [f"{key} is {config[key]!r}, but {value!r} in the weights" for key, value in shown.items()]
    if problems:
        raise CheckpointError(
            f"{path.parent / 'config.json'} does not describe {path.name} beside it:\n  " + "\n  ".join(problems),
            hint="Use the config.json of these weights, or move them into a separate folder.",
        )
