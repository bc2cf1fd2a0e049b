"""Size of a recipe's transformer, computed from the recipe; its autoencoder need not be trained yet, nor be on this machine."""

import re
from pathlib import Path, PurePath

from smtool.checkpoints.hub.published import PUBLISHED
from smtool.data.images.card import is_prepared, read_card
from smtool.errors import CheckpointError, WeightsError
from smtool.image_shape import ImageSize
from smtool.networks.shapes_only import shapes_only
from smtool.networks.tokenizer import Tokenizer
from smtool.recipe import TrainAE, TrainDiT, load
from smtool.recipe.catalog import autoencoder_recipe
from smtool.tokenizers import open_tokenizer
from smtool.tokenizers.dct import dct, needs_measured_eta

Shape = tuple[int, int, int]
_SIZES = re.compile(r"f(\d+)(?:d|c|, )(\d+)")      # f16d32, f32c32, "f8, 4 channels"


def size_rows(tables: TrainDiT) -> dict[str, str]:
    """Rows `latent` and `parameters`. If the latents' shape is unknown or not divisible into patches, a row says so."""
    place = tables.latents.autoencoder
    try:
        shape, source = latents_of(tables)
        if shape is None:
            return {"parameters": f"unknown: the latents' shape depends on {place} and data.image_size"}
        rows, columns = tables.model.token_grid(shape)
    except (CheckpointError, WeightsError, ValueError) as error:
        return {"parameters": f"unknown: {str(error).splitlines()[0]}"}
    return {
        "latent": f"{shape[0]} x {shape[1]} x {shape[2]}, {rows} x {columns} tokens",
        "parameters": _parameters(tables, shape, tables.data.train or source),
    }


def latents_of(tables: TrainDiT) -> tuple[Shape | None, str]:
    """(C, h, w) of the latents and the source of the images, from the autoencoder, else from the recipe that trains it, else from
    sizes in the name of a published one, such as f16d32."""
    place, asked = tables.latents.autoencoder, tables.data.image_size
    size = None if asked == "autoencoder" else asked
    try:
        measured = needs_measured_eta(place)      # the shape of the latents does not depend on eta
        tokenizer: Tokenizer = dct(place, measured=1.0).build() if measured else open_tokenizer(place, image_size=size)
    except (CheckpointError, WeightsError):
        if (found := autoencoder_recipe(place.removesuffix("/ckpt.safetensors"))) is None:
            if size is None or Path(place).exists() or (sizes := _named_sizes(place)) is None:
                raise
            factor, channels = sizes
            return (channels, size.height // factor, size.width // factor), tables.data.train
        recipe = load(found[0], TrainAE).tables
        return recipe.model.latent_shape(*(size or recipe.data.image_size)), recipe.data.train
    data = tokenizer.recipe.get("data", {})
    known = size or data.get("image_size")
    return None if known is None else tokenizer.latent_shape(*ImageSize.of(known)), data.get("train", "")


def _named_sizes(place: str) -> tuple[int, int] | None:
    """Downsampling factor and channels that a name states, or that are known of the published autoencoder of this name."""
    name = PurePath(place).name
    published = PUBLISHED.get(name.split(",")[0].split(".")[0])
    stated = _SIZES.search(name) or (_SIZES.search(published.what) if published else None)
    return None if stated is None else (int(stated[1]), int(stated[2]))


def _parameters(tables: TrainDiT, shape: Shape, source: str) -> str:
    """Number of parameters for the classes of the prepared images; without prepared images, with the number for each class."""
    if tables.labels is None:
        return f"{_count(tables, shape, 0):,}"
    if is_prepared(Path(source)) and (num_classes := read_card(Path(source)).num_classes):
        return f"{_count(tables, shape, num_classes):,} for {num_classes:,} classes"
    one, two = (_count(tables, shape, classes) for classes in (1, 2))
    return f"{2 * one - two:,} plus {two - one:,} for each class of the images"


def _count(tables: TrainDiT, shape: Shape, num_classes: int) -> int:
    with shapes_only():
        network = tables.model.build(shape, num_classes)
    return sum(parameter.numel() for parameter in network.parameters())
