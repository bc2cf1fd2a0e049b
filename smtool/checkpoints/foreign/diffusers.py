"""Folders of diffusers' `AutoencoderKL.save_pretrained`: config.json and diffusion_pytorch_model.safetensors, whole or in shards.

FLUX.2's AutoencoderKLFlux2 is the same network; its batch norm of 2x2 patches of latents becomes LatentStats (`patch_norm.py`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from smtool.checkpoints.assemble import assemble
from smtool.checkpoints.foreign.family import Family
from smtool.checkpoints.foreign.halves import refuse_half
from smtool.checkpoints.foreign.patch_norm import EPS, patch_stats
from smtool.checkpoints.foreign.settings import AS_STATED, Settings, padding_by_name
from smtool.checkpoints.shards import INDEX
from smtool.checkpoints.tensor_file import TensorFile
from smtool.errors import CheckpointError
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE, Autoencoder
from smtool.storage import parsing, shortened

_COPY_AGAIN = "Copy the diffusers folder again."
FLUX2 = "AutoencoderKLFlux2"
OURS = ("AutoencoderKL", FLUX2)
"""Classes of diffusers that smtool's SD-VAE can compute."""
WEIGHTS = "diffusion_pytorch_model"
DIFFUSERS = Family(
    title="diffusers",
    mark="encoder.down_blocks.0.resnets.0.conv1.weight",
    renames=(      # names of attention projections before diffusers 0.17
        (r"(\.attentions\.\d+)\.query\.", r"\1.to_q."),
        (r"(\.attentions\.\d+)\.key\.", r"\1.to_k."),
        (r"(\.attentions\.\d+)\.value\.", r"\1.to_v."),
        (r"(\.attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
    ),
    downsample_pad="asymmetric",
)
IMAGE_CHANNELS = 3
"""Default of diffusers for in_channels and out_channels."""
# Defaults of diffusers for keys that are not in config.json (AutoencoderKL.__init__).
_SILENT = {
    "block_out_channels": [64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "in_channels": IMAGE_CHANNELS,
    "out_channels": IMAGE_CHANNELS,
}
# The only values of these keys that the SD-VAE supports; also the defaults.
_FIXED = {
    "act_fn": "silu",
}


def read_diffusers(folder: Path, device: str = "cpu", settings: Settings = AS_STATED) -> Autoencoder:
    """The autoencoder of a diffusers folder, with its published scale and shift, or FLUX.2's batch norm, as LatentStats.

    settings: None uses the padding that `smtool export` wrote to config.json, else that of the name, else diffusers'.
    Raises CheckpointError for another class, unsupported settings, or missing weights.
    """
    path = folder / "config.json"
    if (found := class_of(path)) not in OURS:
        raise CheckpointError(
            f"{path} describes {found or 'no class of diffusers'}, but only AutoencoderKL can be opened here.",
            hint="`smtool spectrum` opens diffusers' other autoencoders too; for a pipeline, pass its folder `vae/`.",
        )
    config = {**_SILENT, **({} if found == "AutoencoderKL" else {"scaling_factor": None}), **read_config(path)}
    with parsing(path, hint=_COPY_AGAIN):
        config |= {"padding": settings.padding or config.get("padding") or padding_by_name(folder)}
        config |= {"downsample_pad": settings.downsample_pad or config.get("downsample_pad", "asymmetric")}
        config |= {"norm_num_groups": settings.norm_groups or config["norm_num_groups"]}
        network = _network_config(path, config)
    file = TensorFile(weights_in(folder))
    refuse_half(file.path, file.shapes)
    names = DIFFUSERS.our_names(name for name in file.shapes if not name.startswith("bn."))
    autoencoder = assemble(file.path, network, file.read(names, device))
    with parsing(path, hint=_COPY_AGAIN):
        autoencoder.stats = stats_of(config, file, network.latent_channels)
    return autoencoder


def read_config(path: Path) -> dict[str, Any]:
    """The contents of a config.json; {} if they are not an object. Raises CheckpointError if it is not JSON."""
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}.", hint=_COPY_AGAIN) from error
    return config if isinstance(config, dict) else {}


def class_of(path: Path) -> str | None:
    """The class of diffusers named in a config.json, or None."""
    name = read_config(path).get("_class_name")
    return name if isinstance(name, str) else None


def weights_in(folder: Path) -> Path:
    """The file of weights; safetensors is preferred to a pickle, full precision to half. Raises CheckpointError if missing."""
    endings = (".safetensors", INDEX, ".fp16.safetensors", ".bin")
    for name in [f"{WEIGHTS}{ending}" for ending in endings] + ["model.safetensors", f"model{INDEX}"]:
        if (path := folder / name).is_file():
            return path
    raise CheckpointError(
        f"{folder} has a config.json, but no {WEIGHTS}.safetensors.",
        hint="Save the model with `save_pretrained`, or download the weights into this folder.",
    )


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """Settings in an AutoencoderKL's config.json that the SD-VAE does not support, one sentence each."""
    others = {key: value for key, value in _FIXED.items() if config.get(key, value) != value}
    found = [f"{key} is {shortened(repr(config[key]))}, but must be {value!r}" for key, value in others.items()]
    channels = [config.get(key, IMAGE_CHANNELS) for key in ("in_channels", "out_channels")]
    if channels[0] != channels[1]:
        found.append("in_channels is {}, but out_channels is {}; they must be the same".format(*channels))
    return found


def stats_of(config: Mapping[str, Any], file: TensorFile, channels: int, prefix: str = "") -> LatentStats | None:
    """LatentStats of a config, else those of a batch norm of 2x2 patches in its file. prefix: of the autoencoder's names."""
    eps = config.get("batch_norm_eps") or EPS
    return published_stats(config) or patch_stats(file, channels, prefix=prefix, eps=eps)


def published_stats(config: Mapping[str, Any]) -> LatentStats | None:
    """LatentStats of a config: diffusers normalizes by (z - shift) * scale, or per channel by (z - mean) / std * scale."""
    scale, mean, std = (config.get(key) for key in ("scaling_factor", "latents_mean", "latents_std"))
    if mean is not None and std is not None:
        std, residual = torch.tensor(std) / (scale or 1.0), torch.zeros(len(mean))
        return LatentStats("channel", torch.tensor(mean), std, count=0, data="published", residual=residual)
    if scale is None:
        return None
    shift = config.get("shift_factor") or 0.0
    left = torch.zeros(1) if shift else None      # with a scale alone, the mean is unknown
    mean, std = torch.tensor([float(shift)]), torch.tensor([1.0 / scale])
    return LatentStats("scalar", mean, std, count=0, data="published", residual=left)


def _network_config(path: Path, config: Mapping[str, Any]) -> SDVAE:
    channels = config["block_out_channels"]
    problems = unknown_keys(config)
    attention = _attention(config.get("down_block_types", ["DownEncoderBlock2D"] * len(channels)), "DownEncoderBlock2D")
    mirrored = _attention(config.get("up_block_types", ["UpDecoderBlock2D"] * len(channels))[::-1], "UpDecoderBlock2D")
    if attention is None or mirrored is None:
        given = [*config.get("down_block_types", ()), *config.get("up_block_types", ())]
        others = ", ".join(sorted({str(block) for block in given}))
        problems.append(f"it has {shortened(others)}, but only (Attn)DownEncoderBlock2D and (Attn)UpDecoderBlock2D are known")
    elif attention != mirrored:
        problems.append(f"the encoder has attention at levels {attention}, the decoder at {mirrored}; they must be the same")
    quant_convs = config.get("use_quant_conv", True)
    if quant_convs != config.get("use_post_quant_conv", True):
        problems.append("use_quant_conv and use_post_quant_conv differ")
    if problems:
        raise CheckpointError(f"{path} describes another network than the SD-VAE:\n  " + "\n  ".join(problems))
    try:
        return SDVAE(
            downsample=2 ** (len(channels) - 1),
            image_channels=config["in_channels"],
            latent_channels=config["latent_channels"],
            norm_groups=config["norm_num_groups"],
            channels=tuple(channels),
            blocks_per_level=config["layers_per_block"],
            downsample_pad=config["downsample_pad"],
            quant_convs=quant_convs,
            attention=attention or (),
            mid_attention=config.get("mid_block_add_attention", True),
            decoder_channels=tuple(config.get("decoder_block_out_channels") or ()),
            padding=config["padding"],
        )
    except ValidationError as error:
        raise CheckpointError(f"{path} cannot be used: {error.errors()[0]['msg']}.") from error


def _attention(blocks: list[str], plain: str) -> tuple[int, ...] | None:
    """Levels whose blocks have attention; None if there are blocks other than `plain` and "Attn" + `plain`."""
    if not all(block in (plain, f"Attn{plain}") for block in blocks):
        return None
    return tuple(level for level, block in enumerate(blocks) if block != plain)
