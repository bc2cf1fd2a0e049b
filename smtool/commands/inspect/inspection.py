"""`smtool inspect`: a description of a checkpoint, a data folder or a recipe in about a dozen lines."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from smtool.checkpoints.foreign.detect import detect
from smtool.checkpoints.tensor_file import TensorFile
from smtool.checkpoints.transformers.read import is_transformer
from smtool.commands.inspect.diffusion import cache_rows, checkpoint_rows, feature_rows, recipe_rows
from smtool.data.features.card import FEATURE_CARD_NAME
from smtool.data.images.card import CARD_NAME, DatasetCard, check_present, is_prepared, read_card
from smtool.data.latents.card import LATENT_CARD_NAME
from smtool.errors import CheckpointError, RecipeError
from smtool.features.frozen import Frozen
from smtool.image_shape import ImageSize, in_channels
from smtool.networks.posterior import LatentStats
from smtool.networks.rae import RepresentationAutoencoder
from smtool.networks.sd_vae import SDVAE, Autoencoder
from smtool.networks.shapes_only import shapes_only
from smtool.networks.tokenizer import Tokenizer
from smtool.networks.trainable import AutoencoderConfig, TrainableAutoencoder
from smtool.recipe import Recipe, TrainAE, TrainDiT, find, kind_of, load
from smtool.report.console import Console
from smtool.storage import parsing
from smtool.tokenizers import Found, identify, open_tokenizer
from smtool.tokenizers.pixels import PIXELS

_KINDS = {
    "pixels": "the pixels themselves as latents",
    "dct": "DCT coefficients of blocks as latents",
    "control": "control with known measures",
    "encoder": "frozen encoder without a decoder",
    "object": "Python object",
    "trained": "autoencoder, written by smtool {version}",
    "foreign": "autoencoder, in the format of {format}",
    "diffusers": "autoencoder, run by diffusers",
}


@dataclass(frozen=True)
class Description:
    """A title and rows: name -> text."""

    title: str
    rows: dict[str, str]

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 3, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in self.rows.items():
            table.add_row(Text(name), Text(text))
        return table


def inspect(what: str, *, console: Console) -> None:
    """Print a description of a path or name."""
    description = describe(what)
    console.rule(description.title)
    console.print(description)


def describe(what: str) -> Description:
    """Describe a path; a bare name other than `pixels` is first looked up among the packaged recipes, then among
    runs and tokenizers."""
    path = Path(what)
    if is_prepared(path):
        return _data(path, read_card(path))
    if path.name == CARD_NAME:
        return describe(str(path.parent))
    if (path / LATENT_CARD_NAME).is_file():
        return Description(what, cache_rows(path))
    if (path / FEATURE_CARD_NAME).is_file():
        return Description(what, feature_rows(path))
    if path.suffix == ".toml" or (what != PIXELS and not path.exists() and _is_recipe(what)):
        if kind_of(what) is TrainDiT:
            recipe = load(what, TrainDiT)
            return Description(str(recipe.path), recipe_rows(recipe))
        return _recipe(load(what, TrainAE))
    return _checkpoint(_found(what))


def _is_recipe(name: str) -> bool:
    try:
        find(name)
    except RecipeError:
        return False
    return True


def _found(what: str) -> Found:
    try:
        return identify(what)
    except CheckpointError as error:
        if Path(what).is_file() or not str(error).startswith(f"{what}: "):      # a file that cannot be read
            raise
        if Path(what).is_dir():
            raise CheckpointError(
                f"{what}: `inspect` recognizes nothing in this folder.",
                hint="It can describe runs, diffusers folders, and folders that `smtool prepare` wrote.",
            ) from error
        raise CheckpointError(
            f"{what}: no such file, folder, recipe or run.",
            hint=f"{error.hint} `smtool recipes list` shows the recipes.",
        ) from error


def _checkpoint(found: Found) -> Description:
    """Describe a file or folder of weights, or a tokenizer without weights."""
    if found.kind == "diffusion":
        assert found.path is not None, "a file"
        return Description(found.place, checkpoint_rows(found.path))
    if found.kind == "other":
        return Description(found.place, _unknown(found))
    tokenizer, metadata = open_tokenizer(found.name), found.metadata
    rows = {"kind": _KINDS[found.kind].format(format=found.format, version=metadata.get("smtool", "(version not stated)"))}
    if isinstance(tokenizer, Autoencoder):
        with parsing(Path(found.place)):
            rows |= _network(tokenizer.config, ImageSize(256, 256)) | _training(metadata)
    else:
        rows |= _sizes(tokenizer) | _training(metadata)
    rows |= {"statistics": _statistics(tokenizer.stats), "digest": tokenizer.digest}
    if metadata.get("digest") not in (None, rows["digest"]):
        rows["digest"] += f"\nbut the file states {metadata['digest']}: its weights were changed later"
    return Description(found.place, rows)


def _unknown(found: Found) -> dict[str, str]:
    """Rows of a file of tensors that is not an autoencoder. Raises CheckpointError if it is nothing known."""
    assert found.path is not None, "a file"
    shapes, metadata = TensorFile(found.path).shapes, found.metadata
    count = sum(torch.Size(shape).numel() for shape in shapes.values())
    kind = metadata.get("kind")
    if not kind:
        if not is_transformer(shapes):
            detect(found.path, shapes)      # raises an error that says what the file looks like
        kind = "diffusion transformer of another tool; `smtool export --autoencoder` converts it"
    rows = {
        "kind": str(kind),
        "tensors": f"{len(shapes):,}, with {count:,} elements",
    }
    return rows | ({"step": f"{metadata['step']:,}"} if isinstance(metadata.get("step"), int) else {})


def _training(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Rows about the run that wrote a checkpoint."""
    rows = {}
    if isinstance(recipe := metadata.get("recipe"), dict):
        rows["methods"] = ", ".join(recipe.get("regularizers", {})) or "none"
    if isinstance(metadata.get("step"), int):
        rows["step"] = f"{metadata['step']:,}" + (f", {metadata['weights']} weights" if "weights" in metadata else "")
    if metadata.get("data"):
        rows["trained on"] = f"images with digest {metadata['data']}"
    return rows


def _sizes(tokenizer: Tokenizer, image_size: ImageSize = ImageSize(256, 256)) -> dict[str, str]:
    """Rows about the sizes of a tokenizer that is not an SD-VAE."""
    size = tokenizer.image_size or image_size
    channels, height, width = tokenizer.latent_shape(*size)
    return {
        "architecture": tokenizer.architecture,
        **({"parameters": _parameters(tokenizer)} if tokenizer.network is not None else {}),
        "latent": f"{channels} x {height} x {width} for images of {_by(size)}{_unless_rgb(tokenizer.image_channels)}",
    }


def _parameters(tokenizer: Tokenizer) -> str:
    """The number of parameters; for an RAE, those of the decoder, the class token among them, and of the loaded encoder."""
    if not isinstance(tokenizer, RepresentationAutoencoder):
        return f"{_count(tokenizer):,}{_halves(tokenizer)}"
    frozen = tokenizer.config.encoder
    if isinstance(tokenizer.encoder, Frozen):
        frozen += f" with {_count(tokenizer.encoder.network):,}, digest {tokenizer.encoder.digest[:12]}"
    return f"{_count(tokenizer):,} of the decoder; frozen encoder {frozen}, not in the file"


def _halves(tokenizer: Tokenizer) -> str:
    if not isinstance(tokenizer, TrainableAutoencoder):
        return ""
    return f" (encoder {_count(tokenizer.encoder):,}, decoder {_count(tokenizer.decoder):,})"


def _network(config: AutoencoderConfig, image_size: ImageSize) -> dict[str, str]:
    """Rows about architecture, sizes and latent shape, from the configuration alone."""
    with shapes_only():
        autoencoder = config.build()
    if not isinstance(config, SDVAE):
        return _sizes(autoencoder, image_size)
    widths = "-".join(map(str, config.channels))
    channels, height, width = config.latent_shape(*image_size)
    encoder, decoder = _count(autoencoder.encoder), _count(autoencoder.decoder)
    blocks = "1 block" if config.blocks_per_level == 1 else f"{config.blocks_per_level} blocks"
    return {
        "architecture": f"{config.kind} f{config.downsample}d{config.latent_channels}, widths {widths}, "
        f"{blocks} a level, {config.downsample_pad} padding{_unlike(config)}",
        "parameters": f"{_count(autoencoder):,} (encoder {encoder:,}, decoder {decoder:,})",
        "latent": f"{channels} x {height} x {width} for images of {_by(image_size)}{_unless_rgb(config.image_channels)}",
    }


def _unlike(config: SDVAE) -> str:
    """What differs from the published network of Stable Diffusion."""
    parts = [f", {config.norm_groups} norm groups"]
    if config.decoder_channels:
        parts.append(f", decoder widths {'-'.join(map(str, config.decoder_channels))}")
    if config.decoder_blocks is not None:
        parts.append(f", decoder blocks {config.decoder_blocks}")
    if not config.mid_attention:
        parts.append(", no attention")
    if config.padding == "reflect":
        parts.append(", edges reflected")
    return "".join(parts)


def _by(size: ImageSize) -> str:
    return f"{size.height} x {size.width}" if size.is_square else size.words


def _unless_rgb(channels: int) -> str:
    return "" if channels == 3 else f" with {in_channels(channels)}"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _statistics(stats: LatentStats | None) -> str:
    if stats is None:
        return "not measured"
    origin = f"measured on {stats.count:,} samples" if stats.count else stats.data
    shown = (stats.mean.flatten(), stats.std.flatten())
    mean, std = (", ".join(f"{value:.4g}" for value in values[:8].tolist()) for values in shown)
    more = ", ..." if stats.mean.numel() > 8 else ""
    return f"{stats.kind}, {origin}\nmean {mean}{more}\nstd {std}{more}"


def _data(folder: Path, card: DatasetCard) -> Description:
    for shard in card.train + card.val:
        check_present(folder, shard)
    shards = card.train + card.val
    rows = {
        "kind": "prepared images",
        "source": f"{card.source.name} ({card.source.kind})",
        "images": f"{card.count('train'):,} for training, {card.count('val'):,} for validation"
        + (f", from {card.photographs:,} photographs" if card.photographs else ""),
        "size": f"{_by(card.image_size)}{_unless_rgb(card.channels)}, {card.image_format}, {card.crop} crop",
        "classes": f"{card.num_classes:,}" if card.num_classes else f"none: {card.unlabelled}" if card.unlabelled else "none",
        "shards": f"{len(shards):,}, {sum(shard.bytes for shard in shards) / 1e6:,.1f} MB, all present",
    }
    if card.left_out:
        rows["left out"] = "\n".join(f"{count:,} {reason}" for reason, count in card.left_out.items())
    elif card.skipped:  # a folder of an earlier version
        rows["left out"] = f"{card.skipped:,} unreadable images (skipped.jsonl)"
    if card.remarks:
        rows["noted"] = "\n".join(f"{count:,} images: {remark}" for remark, count in card.remarks.items())
    if card.upscaled:
        rows["upscaled"] = f"{card.upscaled:,} images were smaller and have no power at the highest frequencies"
    digests = {f"digest of {split}": card.split_digest(split) for split in ("train", "val") if card.shards(split)}
    return Description(str(folder), {**rows, **digests})


def _recipe(recipe: Recipe[TrainAE]) -> Description:
    tables = recipe.tables
    rows = {
        "kind": "recipe of `smtool train-ae`",
        **_network(tables.model, tables.data.image_size),
        **({"starts from": f"{tables.model.init}, {_trained(tables)} trains"} if tables.model.init else {}),
        "data": f"{tables.data.train}, {_by(tables.data.image_size)}, {tables.data.batch} a step",
        "losses": _losses(tables),
        "methods": ", ".join(tables.regularizers.present) or "none",
        "steps": _steps(tables),
        "run": f"runs/{recipe.name}",
    }
    if remarks := "\n".join(tables.remarks()):
        rows["remarks"] = remarks
    return Description(str(recipe.path), rows)


def _trained(tables: TrainAE) -> str:
    return tables.train if isinstance(tables.train, str) else ", ".join(tables.train)


def _losses(tables: TrainAE) -> str:
    losses = [tables.reconstruction.loss.upper()]
    if tables.perceptual:
        losses.append(f"LPIPS ({tables.perceptual.net}, weight {tables.perceptual.weight:g})")
    if tables.discriminator:
        with shapes_only():
            size = _count(tables.discriminator.build())
        losses.append(
            f"{tables.discriminator.title} ({size:,} parameters, weight {tables.discriminator.weight:g}, "
            f"from step {tables.discriminator.start:,})"
        )
    return ", ".join(losses)


def _steps(tables: TrainAE) -> str:
    text = f"{tables.steps:,}, {tables.steps * tables.data.batch:,} images"
    if tables.discriminator and (own := tables.discriminator.count_turns("autoencoder", tables.steps)) < tables.steps:
        text += f"; {own:,} of these update the autoencoder, the others the discriminator"
    return text
