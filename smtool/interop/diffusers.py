"""A folder that diffusers' `AutoencoderKL.save_pretrained` wrote: config.json beside diffusion_pytorch_model.safetensors."""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from smtool.errors import CheckpointError
from smtool.interop.assemble import assemble
from smtool.networks.autoencoder import SDVAE, Autoencoder
from smtool.networks.layers import DownsamplePad
from smtool.networks.posterior import LatentStats
from smtool.storage import read_tensors

_WEIGHTS = "diffusion_pytorch_model"
# What diffusers takes where config.json is silent (its AutoencoderKL.__init__).
_SILENT = {
    "block_out_channels": [64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}
# The only values of these keys that the SD-VAE knows; absent means that value.
_FIXED = {"in_channels": 3, "out_channels": 3, "act_fn": "silu", "mid_block_add_attention": True}
# Names of the attention's projections before diffusers 0.17.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_diffusers(folder: Path, device: str = "cpu", *, downsample_pad: DownsamplePad | None = None) -> Autoencoder:
    """The autoencoder of a diffusers folder, with its published scale and shift as scalar LatentStats.

    downsample_pad: None is diffusers' own, "asymmetric", unless `smtool export` stated another in config.json.
    """
    config = _config(folder / "config.json")
    section = _section(folder / "config.json", config, downsample_pad or config.get("downsample_pad", "asymmetric"))
    path, tensors = _weights(folder, device)
    autoencoder = assemble(path, section, _renamed(tensors))
    autoencoder.stats = _published_stats(config)
    return autoencoder


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}.", hint="Copy the diffusers folder again.") from error
    found = config.get("_class_name") if isinstance(config, dict) else None
    if found != "AutoencoderKL":
        raise CheckpointError(
            f"{path} describes {found or 'no class of diffusers'}, but only AutoencoderKL can be opened.",
            hint="Pass the folder of the autoencoder itself: in a Stable Diffusion pipeline it is `vae/`.",
        )
    return {**_SILENT, **config}


def _section(path: Path, config: Mapping[str, Any], downsample_pad: DownsamplePad) -> SDVAE:
    channels = config["block_out_channels"]
    problems = [
        f"{key} is {config[key]!r}, but must be {value!r}" for key, value in _FIXED.items() if config.get(key, value) != value
    ]
    for key, block in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if others := set(config.get(key, ())) - {block}:
            problems.append(f"{key} has {', '.join(sorted(others))}, but only {block} is known")
    quant_convs = config.get("use_quant_conv", True)
    if quant_convs != config.get("use_post_quant_conv", True):
        problems.append("use_quant_conv and use_post_quant_conv differ")
    if problems:
        raise CheckpointError(f"{path} describes another network than the SD-VAE:\n  " + "\n  ".join(problems))
    try:
        return SDVAE(
            downsample=2 ** (len(channels) - 1),
            latent_channels=config["latent_channels"],
            norm_groups=config["norm_num_groups"],
            channels=tuple(channels),
            blocks_per_level=config["layers_per_block"],
            downsample_pad=downsample_pad,
            quant_convs=quant_convs,
        )
    except ValidationError as error:
        raise CheckpointError(f"{path} cannot be used: {error.errors()[0]['msg']}.") from error


def _weights(folder: Path, device: str) -> tuple[Path, dict[str, Tensor]]:
    """Prefer safetensors, and full precision; a pickle is opened only as plain tensors."""
    for name in (f"{_WEIGHTS}.safetensors", f"{_WEIGHTS}.fp16.safetensors"):
        if (path := folder / name).is_file():
            return path, read_tensors(path, device)
    if not (path := folder / f"{_WEIGHTS}.bin").is_file():
        raise CheckpointError(
            f"{folder} has a config.json, but no {_WEIGHTS}.safetensors.",
            hint="Save the model with `save_pretrained`, or download the weights into this folder.",
        )
    try:
        return path, torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is not a readable file of plain tensors.", hint="Save it as safetensors.") from error


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float32 tensors under today's names; old attention projections were called otherwise, or were 1x1 convolutions."""
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"(?<=\.attentions\.0\.)(query|key|value|proj_attn)(?=\.)", lambda m: _OLD_ATTENTION[m[1]], name)
        is_convolution = tensor.ndim == 4 and ".attentions." in name
        renamed[name] = (tensor.flatten(1) if is_convolution else tensor).float()
    return renamed


def _published_stats(config: Mapping[str, Any]) -> LatentStats | None:
    """diffusers normalizes by (z - shift) * scale, or per channel by (z - mean) / std * scale."""
    scale = config["scaling_factor"]
    if scale is None:
        return None
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        return LatentStats("channel", torch.tensor(mean), torch.tensor(std) / scale, count=0, data="published")
    shift = config.get("shift_factor") or 0.0
    return LatentStats("scalar", torch.tensor([float(shift)]), torch.tensor([1.0 / scale]), count=0, data="published")
