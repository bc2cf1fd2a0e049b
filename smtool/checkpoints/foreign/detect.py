"""Detect the KL autoencoder in a file of weights from names and shapes, defaults of its family, and given settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from smtool.checkpoints.foreign.family import Family, numbers
from smtool.checkpoints.foreign.halves import refuse_half
from smtool.checkpoints.foreign.key_names import FAMILIES, family_of
from smtool.checkpoints.foreign.ldm import averages
from smtool.errors import CheckpointError
from smtool.image_shape import MODES
from smtool.networks.layers import DownsamplePad, Padding
from smtool.networks.sd_vae import PUBLISHED_CHANNELS, SDVAE

PUBLISHED_GROUPS = 32
"""Norm groups of all published models of these families, which have PUBLISHED_WIDTHS; shapes do not determine them."""
PUBLISHED_WIDTHS = {*PUBLISHED_CHANNELS.values(), (128, 256, 512), (96, 192, 384, 384)}
"""Widths of SD, SDXL, SD3, FLUX, VA-VAE and the paper's trainer, of LDM's f4, and of FLUX.2's small decoder."""
_FIRST = "encoder.conv_in.weight"
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "post_encoder_conv.", "pre_decoder_conv.")
_OTHERS = {
    "quantize": "vector-quantized autoencoders that do not have LDM's layout",
    "codebook": "vector-quantized autoencoders that do not have LDM's layout",
    "qkv": "tokenizers made of transformers (TiTok, SoftVQ, MAETok, l-DeTok, VTP, RAE's decoder ...)",
    "attention": "tokenizers made of transformers (TiTok, SoftVQ, MAETok, l-DeTok, VTP, RAE's decoder ...)",
}
"""Part of a tensor name -> kind of tokenizer in files of unknown families."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Detected:
    """A detected autoencoder. names: name in the file -> smtool's name, for its weights or their averages (EMA); prefix: common
    prefix of the autoencoder's names in the file."""

    family: Family
    config: SDVAE
    prefix: str
    names: Mapping[str, str]


def detect(
    path: Path,
    shapes: Mapping[str, Shape],
    *,
    norm_groups: int | None = None,
    downsample_pad: DownsamplePad | None = None,
    padding: Padding = "zeros",
) -> Detected:
    """The KL autoencoder among these tensors; other weights, such as a loss, a teacher or a U-Net, are ignored.

    norm_groups: needed unless the widths are published ones; downsample_pad: None uses the published value of the family.
    path: for error messages. Raises CheckpointError if there is no such autoencoder.
    """
    prefix, family = _place(path, shapes)
    names = [name.removeprefix(prefix) for name in shapes if name.startswith(prefix)]
    refuse_half(path, names)
    if any(name.startswith("quantize.") for name in names):
        raise CheckpointError(
            f"{path} is a vector-quantized autoencoder, but a KL autoencoder (mean and variance) is needed here.",
            hint="`smtool spectrum` measures those of LDM, taming-transformers and diffusers, before quantization.",
        )
    renamed = family.our_names(name for name in names if name.startswith(_PARTS))
    ours = {new: shapes[f"{prefix}{old}"] for old, new in renamed.items()}
    try:
        config = _section(path, ours, norm_groups, downsample_pad or family.downsample_pad, padding)
    except (KeyError, IndexError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"{error} is missing or has a wrong shape"
        raise CheckpointError(f"{path} has key names of {family.title}, but is not a complete autoencoder: {reason}.") from error
    averaged = averages(shapes, prefix)
    stored = {averaged.get(f"{prefix}{old}", f"{prefix}{old}"): new for old, new in renamed.items()}
    return Detected(family, config, prefix, stored)


def format_of(names: Iterable[str]) -> str | None:
    """The format of the KL autoencoder among these names; None if there is none."""
    return next((family.title for family in _places(names).values()), None)


def _places(names: Iterable[str]) -> dict[str, Family]:
    """Prefix -> family of each KL autoencoder in the file."""
    names = list(names)
    found = {}
    for prefix in (name.removesuffix(_FIRST) for name in names if name == _FIRST or name.endswith(f".{_FIRST}")):
        family = family_of(name.removeprefix(prefix) for name in names if name.startswith(prefix))
        if family is not None:
            found[prefix] = family
    return found


def _place(path: Path, shapes: Mapping[str, Shape]) -> tuple[str, Family]:
    """(prefix, family) of the autoencoder; of several, the average ("ema"), else the one with the shortest prefix."""
    if places := _places(shapes):
        return min(places.items(), key=lambda place: ("ema" not in place[0].lower(), len(place[0])))
    refuse_half(path, shapes)
    listed = ", ".join([*list(shapes)[:4], *(["..."] if len(shapes) > 4 else [])]) or "none"
    known = "; ".join(f"{family.title} ({family.mark.removesuffix('.conv1.weight')})" for family in FAMILIES)
    raise CheckpointError(
        f"{path} holds no known autoencoder; its tensors are {listed}.",
        hint=f"Known formats are KL autoencoders of {known}; {_advice(shapes)}",
    )


def _advice(names: Iterable[str]) -> str:
    """How to open a tokenizer whose file is of no known family."""
    parts = {part for name in names for part in name.split(".")}
    kind = next((kind for part, kind in _OTHERS.items() if part in parts), "others")
    return f"{kind} can be opened with their own code, as module:attribute, an object with encode and decode."


def _section(
    path: Path, shapes: Mapping[str, Shape], norm_groups: int | None, downsample_pad: DownsamplePad, padding: Padding
) -> SDVAE:
    latent_channels, moments = shapes["decoder.conv_in.weight"][1], shapes["encoder.conv_out.weight"][0]
    encoded, decoded = shapes[_FIRST][1], shapes["decoder.conv_out.weight"][0]
    if encoded != decoded or encoded not in MODES:
        raise CheckpointError(
            f"{path} encodes images of {encoded} and decodes images of {decoded} channels; both must be the same number, 1 to 4."
        )
    if moments != 2 * latent_channels:
        raise CheckpointError(
            f"{path}: the encoder has {moments} output channels for {latent_channels} latent channels, "
            f"but a KL autoencoder has a mean and a variance of each, {2 * latent_channels} in total."
        )
    widths, decoder_widths = level_widths(shapes), decoder_level_widths(shapes)
    blocks, decoder_blocks = blocks_per_level(shapes), decoder_blocks_per_level(shapes)
    return SDVAE(
        downsample=2 ** (len(widths) - 1),
        latent_channels=latent_channels,
        image_channels=encoded,
        norm_groups=norm_groups or _groups(path, widths, decoder_widths),
        channels=widths,
        blocks_per_level=blocks,
        downsample_pad=downsample_pad,
        quant_convs="quant_conv.weight" in shapes or "post_quant_conv.weight" in shapes,
        attention=attended_levels(shapes),
        mid_attention="decoder.mid_block.attentions.0.group_norm.weight" in shapes,
        decoder_channels=decoder_widths if decoder_widths != widths else (),
        decoder_blocks=decoder_blocks if decoder_blocks != blocks + 1 else None,
        padding=padding,
    )


def level_widths(shapes: Mapping[str, Shape]) -> tuple[int, ...]:
    """Widths of the encoder's levels. This and the next four functions expect smtool's names."""
    levels = numbers(shapes, r"encoder\.down_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
    return tuple(shapes[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"][0] for level in range(len(levels)))


def decoder_level_widths(shapes: Mapping[str, Shape]) -> tuple[int, ...]:
    """Widths of the decoder's levels, from full size to the lowest."""
    levels = numbers(shapes, r"decoder\.up_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
    widths = tuple(shapes[f"decoder.up_blocks.{level}.resnets.0.conv1.weight"][0] for level in range(len(levels)))
    return widths[::-1]


def blocks_per_level(names: Iterable[str]) -> int:
    return len(numbers(names, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.conv1\.weight"))


def decoder_blocks_per_level(names: Iterable[str]) -> int:
    return len(numbers(names, r"decoder\.up_blocks\.0\.resnets\.(\d+)\.conv1\.weight"))


def attended_levels(names: Iterable[str]) -> tuple[int, ...]:
    return tuple(numbers(names, r"encoder\.down_blocks\.(\d+)\.attentions\.0\.group_norm\.weight"))


def _groups(path: Path, *widths: tuple[int, ...]) -> int:
    if not PUBLISHED_WIDTHS.issuperset(widths):
        other = next(one for one in widths if one not in PUBLISHED_WIDTHS)
        raise CheckpointError(
            f"{path}: weights do not show the number of norm groups, and no published network has the widths {other}.",
            hint=f"Give it behind the name, as in {path.name},norm_groups=32, or put config.json beside the file, with "
            '{"_class_name": "AutoencoderKL", "norm_num_groups": ...}.',
        )
    return PUBLISHED_GROUPS
