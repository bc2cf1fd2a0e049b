"""Folders of diffusers' AutoencoderRAE: the decoder's weights and the latents' statistics; the encoder is found by its name.

smtool runs them itself, so that `train-ae` can train the decoder further. The folder also holds the frozen encoder, under names
of another library; of these weights only the patch projection is read, to check that the named encoder is the same network.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smtool.checkpoints.assemble import assemble
from smtool.checkpoints.foreign.diffusers import read_config, weights_in
from smtool.checkpoints.tensor_file import TensorFile
from smtool.errors import CheckpointError
from smtool.features.encoder import supply_encoder
from smtool.features.frozen import Frozen
from smtool.networks.posterior import LatentStats
from smtool.networks.rae import IMAGENET_MEAN, IMAGENET_STD, RAE, DecoderShape, RepresentationAutoencoder
from smtool.storage import parsing

RAE_CLASS = "AutoencoderRAE"
ENCODERS = {
    ("dinov2", 384): "dinov2-s-reg", ("dinov2", 768): "dinov2-b-reg", ("dinov2", 1024): "dinov2-l-reg",
    ("siglip2", 768): "siglip2-b", ("mae", 768): "mae-b",
}  # fmt: skip
"""(encoder_type, encoder_hidden_size) of a config.json -> smtool's name of the encoder."""
_EPS = 1e-5
"""Added by diffusers to the standard deviations of latents."""
_PATCHES = re.compile(r"encoder\.(vision_model\.)?embeddings\.patch_embedding(s\.projection)?\.weight")
_DEFAULTS = {
    "encoder_type": "dinov2", "encoder_hidden_size": 768, "decoder_hidden_size": 512, "decoder_num_hidden_layers": 8,
    "decoder_num_attention_heads": 16, "decoder_intermediate_size": 2048, "patch_size": 16, "num_channels": 3,
}  # fmt: skip
"""Of diffusers 0.42, for keys that a config.json leaves out."""
_RENAMES = (
    (r"^decoder\.decoder_embed\.", "decoder.embed."),
    (r"^decoder\.decoder_norm\.", "decoder.norm."),
    (r"^decoder\.decoder_pred\.", "decoder.head."),
    (r"^decoder\.trainable_cls_token$", "decoder.class_token"),
    (r"^decoder\.decoder_layers\.(\d+)\.attention\.to_out\.0\.", r"decoder.blocks.\1.attn.proj."),
    (r"^decoder\.decoder_layers\.(\d+)\.layernorm_before\.", r"decoder.blocks.\1.norm1."),
    (r"^decoder\.decoder_layers\.(\d+)\.layernorm_after\.", r"decoder.blocks.\1.norm2."),
    (r"^decoder\.decoder_layers\.(\d+)\.intermediate\.dense\.", r"decoder.blocks.\1.mlp.fc1."),
    (r"^decoder\.decoder_layers\.(\d+)\.output\.dense\.", r"decoder.blocks.\1.mlp.fc2."),
)
_QUERY = re.compile(r"^decoder\.decoder_layers\.(\d+)\.attention\.to_q\.(weight|bias)$")


def supported(folder: Path) -> bool:
    """Whether the folder's encoder is one that smtool finds by name."""
    config = {**_DEFAULTS, **read_config(folder / "config.json")} if folder.is_dir() else {}
    return config.get("num_channels") == 3 and _encoder(config) is not None


def read_rae(folder: Path, device: str = "cpu", *, weights_dir: Path | None = None) -> RepresentationAutoencoder:
    """The RAE of a folder, with its frozen encoder. Raises CheckpointError, and WeightsError without the encoder's weights."""
    config = {**_DEFAULTS, **read_config(folder / "config.json")}
    file = TensorFile(weights_in(folder))
    with parsing(folder / "config.json"):
        table = _table(config)
    autoencoder = assemble(file.path, table, _weights(file, config, device))
    with parsing(folder / "config.json"):
        autoencoder.stats = _stats(file, config)
    supply_encoder(autoencoder, weights_dir, path=folder)
    _refuse_another_encoder(folder, file, autoencoder, _normalization(config))
    return autoencoder


def _encoder(config: Mapping[str, Any]) -> str | None:
    kind, width = config.get("encoder_type"), config.get("encoder_hidden_size")
    return ENCODERS.get((kind, width)) if isinstance(kind, str) and isinstance(width, int) else None


def _table(config: Mapping[str, Any]) -> RAE:
    parts = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    shape = DecoderShape(*(config[f"decoder_{part}"] for part in parts))
    size = next((name for name, known in RAE.SIZES.items() if known == shape), "custom")
    channels, name = config["encoder_hidden_size"], _encoder(config)
    keys = {"encoder": name, "latent_channels": channels, "downsample": config["patch_size"], "size": size, **vars(shape)}
    return RAE.model_validate(keys)


def _weights(file: TensorFile, config: Mapping[str, Any], device: str) -> dict[str, Tensor]:
    """The decoder's weights under smtool's names; queries, keys and values become one matrix."""
    names = [name for name in file.shapes if name.startswith("decoder.") and not name.endswith("decoder_pos_embed")]
    stored = file.read({name: name for name in names}, device)
    found: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if match := _QUERY.match(name):
            parts = [name.replace("to_q", f"to_{letter}") for letter in "qkv"]
            joined = torch.cat([stored[part] for part in parts if part in stored])      # of another shape if one is missing
            found[f"decoder.blocks.{match[1]}.attn.qkv.{match[2]}"] = joined
        elif re.search(r"\.attention\.to_[kv]\.", name) is None:
            found[_renamed(name)] = tensor
    return found | {key: value.to(device) for key, value in _normalization(config).items()}


def _normalization(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Mean and std of the encoder's images."""
    defaults = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    return {key: torch.tensor(config.get(f"encoder_norm_{key}") or default) for key, default in defaults.items()}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _stats(file: TensorFile, config: Mapping[str, Any]) -> LatentStats | None:
    """(z - mean) / (std + 1e-5) * scaling_factor, per element or per channel; None for files without statistics."""
    names = {f"_latents_{key}": key for key in ("mean", "std") if f"_latents_{key}" in file.shapes}
    stored: dict[str, Any] = dict(file.read(names)) if len(names) == 2 else {}
    mean, std = (torch.as_tensor(config[f"latents_{key}"]) if config.get(f"latents_{key}") is not None else stored.get(key)
                 for key in ("mean", "std"))
    if mean is None or std is None or mean.numel() == 1:
        return None
    mean, std = (value.float().reshape(value.shape[-3:] if value.ndim > 1 else (-1,)) for value in (mean, std))
    std = (std + _EPS) / (config.get("scaling_factor") or 1.0)
    of_elements = mean.ndim == 3 and mean.shape[1] * mean.shape[2] > 1
    mean, std = (mean, std) if of_elements else (mean.flatten(), std.flatten())
    return LatentStats("element" if of_elements else "channel", mean, std, 0, "published", torch.zeros(len(mean)))


def _refuse_another_encoder(
    folder: Path, file: TensorFile, autoencoder: RepresentationAutoencoder, normalization: Mapping[str, Tensor]
) -> None:
    """Raise CheckpointError if the folder's encoder has another patch projection, mean or std than the one found by name."""
    for key, value in normalization.items():
        if not torch.allclose(value, getattr(autoencoder, key).cpu(), atol=1e-3):
            raise CheckpointError(
                f"{folder / 'config.json'}: encoder_norm_{key} is {value.tolist()}, but that of {autoencoder.config.encoder} is "
                f"{[round(one, 4) for one in getattr(autoencoder, key).tolist()]}.",
                hint="Open the folder with diffusers in Python.",
            )
    named = next((name for name in file.shapes if _PATCHES.fullmatch(name)), None)
    assert isinstance(autoencoder.encoder, Frozen)
    own = autoencoder.encoder.network.get_parameter("patch_embed.proj.weight")
    if named is None:
        return
    stored = file.read({named: "patches"})["patches"].to(own.device)
    if stored.shape != own.shape or not torch.allclose(stored, own, rtol=1e-2, atol=1e-3):      # may be stored in half precision
        raise CheckpointError(
            f"{folder}: its encoder is not {autoencoder.config.encoder}, whose weights were found on this machine.",
            hint="Use the published weights of this encoder, or open the folder with diffusers in Python.",
        )
