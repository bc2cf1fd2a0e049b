"""DC-AE in files of other tools: folders and files of diffusers' AutoencoderDC, and files with the names of DC-AE's authors."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from smtool.checkpoints.assemble import assemble
from smtool.checkpoints.foreign.diffusers import WEIGHTS, class_of, published_stats, read_config, weights_in
from smtool.checkpoints.foreign.halves import half_in
from smtool.checkpoints.foreign.inferred_classes import Found, config_of, find_class
from smtool.checkpoints.shards import INDEX
from smtool.checkpoints.tensor_file import TensorFile
from smtool.networks.dc_ae import DCAE, DeepCompressionAutoencoder
from smtool.storage import parsing

DC_AE = "AutoencoderDC"
_FUSED = ".attn.qkv.weight"
_QKV = (".attn.to_q.weight", ".attn.to_k.weight", ".attn.to_v.weight")
_RENAMES = (
    (r"\.(main|op_list)(?=\.)", ""),
    (r"^encoder\.stages\.", "encoder.down_blocks."),
    (r"^decoder\.stages\.", "decoder.up_blocks."),
    (r"\.context_module\.", ".attn."),
    (r"\.local_module\.", ".conv_out."),
    (r"\.attn\.aggreg\.(\d+)\.0\.", r".attn.to_qkv_multiscale.\1.proj_in."),
    (r"\.attn\.aggreg\.(\d+)\.1\.", r".attn.to_qkv_multiscale.\1.proj_out."),
    (r"\.attn\.proj\.conv\.", ".attn.to_out."),
    (r"\.attn\.proj\.norm\.", ".attn.norm_out."),
    (r"\.(inverted|depth|point)_conv\.conv\.", r".conv_\1."),
    (r"\.(point_conv|conv2)\.norm\.", ".norm."),
    (r"\.project_in\.", ".conv_in."),
    (r"^encoder\.project_out\.0\.", "encoder.conv_out."),
    (r"^decoder\.project_out\.0\.", "decoder.norm_out."),
    (r"^decoder\.project_out\.2\.", "decoder.conv_out."),
    (r"\.(conv_in|conv_out|conv1|conv2|conv|qkv)\.conv\.", r".\1."),
)
"""Names of DC-AE's authors -> those of diffusers; the projections to queries, keys and values remain one tensor (_FUSED)."""
_ACTIVATIONS = {"relu": "relu", "silu": "silu", "swish": "silu"}


def supported(path: Path) -> bool:
    """Whether a folder, or a file of weights, is an AutoencoderDC that smtool's own network computes."""
    try:
        return _config(path) is not None
    except (KeyError, IndexError, ValueError, TypeError):      # incomplete or unusual: diffusers says what is wrong
        return False


def read_dc_ae(path: Path, device: str = "cpu") -> DeepCompressionAutoencoder:
    """The autoencoder of a folder or file, float32. LatentStats come from scaling_factor in config.json; a file alone has none.

    Raises CheckpointError for weights that do not fit.
    """
    config = _config(path)
    assert config is not None, "checked by the caller"
    file, folder = TensorFile(_weights(path)), _folder(path)
    tensors = file.read(names_in(file), device)
    for name in [name for name in tensors if name.endswith(_FUSED)]:
        parts = tensors.pop(name).flatten(1).chunk(3)
        tensors |= {name.replace(_FUSED, new): part.clone() for new, part in zip(_QKV, parts, strict=True)}
    tensors = {name: value.flatten(1) if name.endswith(".attn.to_out.weight") else value for name, value in tensors.items()}
    autoencoder = assemble(file.path, config, tensors)
    if folder is not None:
        with parsing(folder / "config.json"):
            autoencoder.stats = published_stats(read_config(folder / "config.json"))
    return autoencoder


def names_in(file: TensorFile) -> dict[str, str]:
    """Name in the file -> smtool's name, which is that of diffusers; see `fused` for one exception."""
    found = find_class(file.shapes) or Found(DC_AE, "diffusers", "")
    names = {name: name.removeprefix(found.prefix) for name in file.shapes if name.startswith(found.prefix)}
    return {old: _renamed(name) for old, name in names.items()} if found.layout == "dc-ae" else names


def fused(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the projections to queries, keys and values of each attention in one tensor, as DC-AE's authors store
    them."""
    found = dict(weights)
    for name in [name for name in weights if name.endswith(_QKV[0])]:
        parts = [found.pop(name.replace(_QKV[0], part)) for part in _QKV]
        found[name.replace(_QKV[0], _FUSED)] = torch.cat(parts)
    return found


def is_by_authors(file: TensorFile) -> bool:
    """Whether the file has the names of DC-AE's authors."""
    found = find_class(file.shapes)
    return found is not None and found.layout == "dc-ae"


def is_dc_ae(file: TensorFile) -> bool:
    """Whether the file has the weights of an AutoencoderDC, under any known names."""
    found = find_class(file.shapes)
    return found is not None and found.name == DC_AE


def config_of_diffusers(values: Mapping[str, Any]) -> DCAE | None:
    """The table of a network with these arguments of diffusers' AutoencoderDC; None if smtool's network lacks one of them.

    Raises ValueError (also pydantic's), KeyError or TypeError for values that are no AutoencoderDC.
    """
    given = {**_SILENT, **values}
    widths = tuple(given["encoder_block_out_channels"])
    halves = {half: _half(given, half, len(widths)) for half in ("encoder", "decoder")}
    attention, scales = halves["encoder"]
    norms = _each(given["decoder_norm_types"], len(widths))
    activations = [_ACTIVATIONS.get(name) for name in _each(given["decoder_act_fns"], len(widths))]
    blocks = tuple(given["decoder_layers_per_block"])
    residual = [level for level in range(len(widths)) if level not in attention and blocks[level]]
    batch_norm = tuple(level for level, norm in enumerate(norms) if norm == "batch_norm" and level not in attention)
    resampling = {("pixel_unshuffle", "pixel_shuffle"): "shuffle", ("conv", "interpolate"): "convolution"}.get(
        (given["downsample_block_type"].lower(), given["upsample_block_type"])
    )
    last, scales_agree = _ACTIVATIONS.get(given["decoder_conv_act_fn"]), len({*scales, *halves["decoder"][1]}) <= 1
    alike = (
        halves["decoder"][0] == attention and scales_agree and resampling is not None and last is not None
        and _used(given["decoder_block_out_channels"], blocks) == _used(widths, given["encoder_layers_per_block"])
        and given["encoder_out_shortcut"] == given["decoder_in_shortcut"]
        and all(norms[level] in ("batch_norm", "rms_norm") for level in residual)
        and all(norms[level] == "rms_norm" for level in attention)
        and all(activations[level] == ("relu" if level in batch_norm else "silu") for level in residual)
    )
    if not alike:
        return None
    return DCAE(
        downsample=2 ** (len(widths) - 1),
        latent_channels=given["latent_channels"],
        image_channels=given["in_channels"],
        channels=widths,
        encoder_blocks=tuple(given["encoder_layers_per_block"]),
        decoder_blocks=blocks,
        attention=attention,
        head_channels=given["attention_head_dim"],
        attention_scales=next(iter(scales), ()),
        batch_norm=batch_norm,
        resampling="shuffle" if resampling == "shuffle" else "convolution",
        latent_shortcuts=given["encoder_out_shortcut"],
        last_activation="silu" if last == "silu" else "relu",
    )


# Defaults of diffusers for keys that are not in config.json (AutoencoderDC.__init__).
_SILENT: dict[str, Any] = {
    "in_channels": 3, "latent_channels": 32, "attention_head_dim": 32,
    **{f"{half}_block_types": "ResBlock" for half in ("encoder", "decoder")},
    **{f"{half}_block_out_channels": (128, 256, 512, 512, 1024, 1024) for half in ("encoder", "decoder")},
    "encoder_layers_per_block": (2, 2, 2, 3, 3, 3), "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
    **{f"{half}_qkv_multiscales": ((), (), (), (5,), (5,), (5,)) for half in ("encoder", "decoder")},
    "upsample_block_type": "pixel_shuffle", "downsample_block_type": "pixel_unshuffle",
    "decoder_norm_types": "rms_norm", "decoder_act_fns": "silu",
    "encoder_out_shortcut": True, "decoder_in_shortcut": True, "decoder_conv_act_fn": "relu",
}


def _half(given: Mapping[str, Any], half: str, levels: int) -> tuple[tuple[int, ...], set[tuple[int, ...]]]:
    """(levels with EfficientViT blocks, the different scales of their attention) of the encoder or decoder."""
    kinds = _each(given[f"{half}_block_types"], levels)
    if wrong := [kind for kind in kinds if kind not in ("ResBlock", "EfficientViTBlock")]:
        raise ValueError(f"{half}_block_types names {wrong[0]!r}")
    attention = tuple(level for level, kind in enumerate(kinds) if kind == "EfficientViTBlock")
    return attention, {tuple(given[f"{half}_qkv_multiscales"][level]) for level in attention}


def _each(value: Any, levels: int) -> tuple[Any, ...]:
    """A value per level, from one for all or one for each."""
    return (value,) * levels if isinstance(value, str) else tuple(value)


def _used(widths: Any, blocks: Any) -> tuple[int, ...]:
    """The widths without that of a level 0 that has no blocks, which no layer has."""
    return tuple(widths)[0 if blocks[0] else 1 :]


def _config(path: Path) -> DCAE | None:
    """The table of a folder or file; None if it is no AutoencoderDC or one that smtool's network cannot compute."""
    if (folder := _folder(path)) is not None:
        return config_of_diffusers({key: value for key, value in read_config(folder / "config.json").items() if key in _SILENT})
    file = TensorFile(path)
    if not is_dc_ae(file) or half_in(file.shapes) is not None:
        return None
    shapes = {new: file.shapes[old] for old, new in names_in(file).items()}
    shapes |= {
        name.replace(_FUSED, new): (shape[0] // 3, shape[1])
        for name, shape in list(shapes.items()) if name.endswith(_FUSED) for new in _QKV
    }
    try:
        return config_of_diffusers(config_of(DC_AE, shapes))
    except ValidationError:
        return None


def _folder(path: Path) -> Path | None:
    """The folder with a config.json of an AutoencoderDC, if `path` is it or its file of weights."""
    named = re.fullmatch(rf"{WEIGHTS}((\.fp16)?\.(safetensors|bin)|{re.escape(INDEX)})", path.name)
    if not path.is_dir() and named is None:
        return None
    config = (path if path.is_dir() else path.parent) / "config.json"
    return config.parent if config.is_file() and class_of(config) == DC_AE else None


def _weights(path: Path) -> Path:
    return weights_in(path) if path.is_dir() else path


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
