"""`smtool inspect`: what a checkpoint, a prepared data folder or a recipe is, in a dozen lines."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from smtool.datasets.card import CARD_NAME, DatasetCard, check_present, read_card
from smtool.datasets.features_card import FEATURE_CARD_NAME
from smtool.datasets.latents_card import LATENT_CARD_NAME
from smtool.errors import CheckpointError, RecipeError
from smtool.interop import autoencoder_digest, find_autoencoder, load_autoencoder
from smtool.interop.codec import Codec, open_codec
from smtool.interop.detect import format_of
from smtool.interop.diffusers_classes import runs_by_diffusers
from smtool.interop.tensor_file import TensorFile
from smtool.networks.autoencoder import SDVAE, Autoencoder
from smtool.networks.posterior import LatentStats
from smtool.pipelines.inspect.diffusion import cache_rows, checkpoint_rows, feature_rows, recipe_rows
from smtool.pipelines.train.diffusion_checkpoint import KIND
from smtool.recipe import Recipe, TrainAE, TrainDiT, find, kind_of, load
from smtool.report.console import Console
from smtool.storage import read_metadata


@dataclass(frozen=True)
class Description:
    """A title, and rows of (what, text)."""

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
    """Print what a path or a name stands for."""
    description = describe(what)
    console.rule(description.title)
    console.print(description)


def describe(what: str) -> Description:
    """A path is taken for what lies there; a bare name for a recipe that comes with smtool, else for a run under runs/."""
    path = Path(what)
    if (path / CARD_NAME).is_file():
        return _data(path, read_card(path))
    if path.name == CARD_NAME:
        return describe(str(path.parent))
    if (path / LATENT_CARD_NAME).is_file():
        return Description(what, cache_rows(path))
    if (path / FEATURE_CARD_NAME).is_file():
        return Description(what, feature_rows(path))
    if path.suffix == ".toml" or (not path.exists() and _is_recipe(what)):
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


def _found(what: str) -> Path:
    try:
        return find_autoencoder(what)
    except CheckpointError as error:
        if Path(what).is_dir():
            raise CheckpointError(
                f"{what}: this folder holds nothing that `inspect` knows.",
                hint="It describes runs, diffusers AutoencoderKL folders, and images once `smtool prepare` has written them.",
            ) from error
        raise CheckpointError(
            f"{what}: no such file, folder, recipe or run.",
            hint=f"{error.hint} `smtool recipes list` shows the recipes.",
        ) from error


def _checkpoint(path: Path) -> Description:
    if runs_by_diffusers(path):
        return Description(str(path), _foreign(open_codec(str(path))))
    if path.is_dir():
        return Description(str(path), {"kind": "autoencoder, in diffusers' format", **_autoencoder(load_autoencoder(path), {})})
    file = TensorFile(path)
    metadata, shapes = {} if file.is_pickled else read_metadata(path), file.shapes
    kind = metadata.get("kind")
    if kind == "autoencoder":
        rows = {"kind": f"autoencoder, written by smtool {metadata.get('smtool', '(version not stated)')}"}
        return Description(str(path), rows | _autoencoder(load_autoencoder(path), metadata))
    if kind == KIND:
        return Description(str(path), checkpoint_rows(path))
    if family := format_of(shapes):
        rows = {"kind": f"autoencoder, in the format of {family}"}
        return Description(str(path), rows | _autoencoder(load_autoencoder(path), {}))
    count = sum(torch.Size(shape).numel() for shape in shapes.values())
    rows = {
        "kind": str(kind) if kind else "unknown: a file that smtool did not write",
        "tensors": f"{len(shapes):,}, with {count:,} numbers",
    }
    return Description(str(path), rows | ({"step": f"{metadata['step']:,}"} if isinstance(metadata.get("step"), int) else {}))


def _autoencoder(autoencoder: Autoencoder, metadata: Mapping[str, Any]) -> dict[str, str]:
    rows = _network(autoencoder.section, 256)
    recipe = metadata.get("recipe")
    if isinstance(recipe, dict):
        rows["methods"] = ", ".join(recipe.get("regularizers", {})) or "none"
    if isinstance(metadata.get("step"), int):
        rows["step"] = f"{metadata['step']:,}" + (f", {metadata['weights']} weights" if "weights" in metadata else "")
    if metadata.get("data"):
        rows["trained on"] = f"images with digest {metadata['data']}"
    rows["statistics"] = _statistics(autoencoder.stats)
    rows["digest"] = autoencoder_digest(autoencoder)
    if metadata.get("digest") not in (None, rows["digest"]):
        rows["digest"] += f"\nbut the file states {metadata['digest']}: its weights were changed after it was written"
    return rows


def _foreign(codec: Codec) -> dict[str, str]:
    assert codec.network is not None      # a class of diffusers
    return {
        "kind": "autoencoder that diffusers runs: for `smtool spectrum`, not to train or to train on",
        "architecture": codec.architecture,
        "parameters": f"{_count(codec.network):,}",
        "statistics": _statistics(codec.stats),
        "digest": codec.digest,
    }


def _network(section: SDVAE, image_size: int) -> dict[str, str]:
    """Architecture, sizes and latent shape of an autoencoder that need not exist."""
    with torch.device("meta"):
        autoencoder = section.build()
    widths = "-".join(map(str, section.channels))
    channels, height, width = section.latent_shape(image_size, image_size)
    encoder, decoder = _count(autoencoder.encoder), _count(autoencoder.decoder)
    blocks = "1 block" if section.blocks_per_level == 1 else f"{section.blocks_per_level} blocks"
    return {
        "architecture": f"{section.kind} f{section.downsample}d{section.latent_channels}, widths {widths}, "
        f"{blocks} a level, {section.downsample_pad} padding",
        "parameters": f"{_count(autoencoder):,} (encoder {encoder:,}, decoder {decoder:,})",
        "latent": f"{channels} x {height} x {width} for images of {image_size} x {image_size}",
    }


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _statistics(stats: LatentStats | None) -> str:
    if stats is None:
        return "none yet"
    origin = f"measured on {stats.count:,} samples" if stats.count else stats.data
    mean, std = (", ".join(f"{value:.4g}" for value in values.tolist()) for values in (stats.mean[:8], stats.std[:8]))
    more = ", ..." if len(stats.mean) > 8 else ""
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
        "size": f"{card.image_size} x {card.image_size}, {card.image_format}, {card.crop} crop",
        "classes": f"{card.num_classes:,}" if card.num_classes else "none",
        "shards": f"{len(shards):,}, {sum(shard.bytes for shard in shards) / 1e6:,.1f} MB, all present",
    }
    if card.skipped:
        rows["skipped"] = f"{card.skipped:,} damaged images (skipped.jsonl)"
    if card.upscaled:
        rows["upscaled"] = f"{card.upscaled:,} images were smaller: their highest frequencies are empty"
    digests = {f"digest of {split}": card.split_digest(split) for split in ("train", "val") if card.shards(split)}
    return Description(str(folder), {**rows, **digests})


def _recipe(recipe: Recipe[TrainAE]) -> Description:
    tables = recipe.tables
    rows = {
        "kind": "recipe of `smtool train-ae`",
        **_network(tables.model, tables.data.image_size),
        "data": f"{tables.data.train}, {tables.data.image_size} x {tables.data.image_size}, {tables.data.batch} a step",
        "losses": _losses(tables),
        "methods": ", ".join(tables.regularizers.present) or "none",
        "steps": _steps(tables),
        "run": f"runs/{recipe.name}",
    }
    if remarks := "\n".join(tables.remarks()):
        rows["remarks"] = remarks
    return Description(str(recipe.path), rows)


def _losses(tables: TrainAE) -> str:
    losses = [tables.reconstruction.loss.upper()]
    if tables.perceptual:
        losses.append(f"LPIPS ({tables.perceptual.net}, weight {tables.perceptual.weight:g})")
    if tables.discriminator:
        with torch.device("meta"):
            size = _count(tables.discriminator.build())
        losses.append(
            f"PatchGAN ({size:,} parameters, weight {tables.discriminator.weight:g}, from step {tables.discriminator.start:,})"
        )
    return ", ".join(losses)


def _steps(tables: TrainAE) -> str:
    text = f"{tables.steps:,}, {tables.steps * tables.data.batch:,} images"
    if tables.discriminator and (own := tables.discriminator.count_turns("autoencoder", tables.steps)) < tables.steps:
        text += f"; {own:,} of them update the autoencoder, the others the discriminator"
    return text
