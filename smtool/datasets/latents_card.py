"""latents.json: what a latent cache holds, which autoencoder made it and of which images."""

import hashlib
import json
from pathlib import Path
from typing import Literal

from smtool.config import Section
from smtool.datasets.card import UNFINISHED, Shard, Split, parse_card
from smtool.datasets.latents_measure import Measured
from smtool.datasets.latents_shards import LatentDtype
from smtool.errors import DataError

LATENT_CARD_NAME = "latents.json"


class LatentCard(Section):
    """The contents of latents.json."""

    format: Literal["smtool latents 1"] = "smtool latents 1"
    autoencoder: str
    """Digest of the autoencoder."""
    checkpoint: str
    """Where the autoencoder lay."""
    data: str
    """Digest of the images: of one split of a prepared folder."""
    images_folder: str
    """Where the images lay."""
    split: Split
    image_size: int
    latent_shape: tuple[int, int, int]
    """(C, h, w)."""
    dtype: LatentDtype
    flip: bool
    """Whether the moments of the flipped images are there too."""
    seed: int
    """Of the noise with which latents were sampled for the statistics."""
    num_classes: int
    measured: Measured
    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        """Number of images; with flip there are twice as many latents."""
        return sum(shard.images for shard in self.shards)

    @property
    def digest(self) -> str:
        """sha256 over every shard's name and sha256."""
        return hashlib.sha256(json.dumps([(shard.name, shard.sha256) for shard in self.shards]).encode()).hexdigest()


def latents_folder(data_name: str, *, autoencoder: str, data: str, flip: bool, dtype: LatentDtype) -> Path:
    """Where a cache lies by default; autoencoder and data are digests. Only what departs from flip and bf16 is spelled out."""
    departures = ("" if flip else "-noflip") + ("" if dtype == "bf16" else f"-{dtype}")
    return Path("data") / "latents" / f"{data_name}-{autoencoder[:8]}-{data[:8]}{departures}"


def read_latent_card(folder: Path) -> LatentCard:
    """The card of a latent cache. Raises DataError when there is none, or when it cannot be understood."""
    path = folder / LATENT_CARD_NAME
    if path.is_file():
        return parse_card(path, LatentCard)
    if (folder / UNFINISHED).is_dir():
        hint = "Its preparation was interrupted; run the same `smtool prepare ... --latents` command again to finish it."
    else:
        hint = f"Make one: {prepare_command('IMAGES', 'ckpt.safetensors', out=folder)}"
    raise DataError(f"{folder} is not a latent cache: it has no {LATENT_CARD_NAME}.", hint=hint)


def refuse_stale(folder: Path, card: LatentCard, *, autoencoder: str | None, data: str | None) -> None:
    """DataError unless the cache was made by this autoencoder and of these images; None is not compared."""
    found, asked = [], []
    for what, mine, where, wanted in (
        ("autoencoder", card.autoencoder, card.checkpoint, autoencoder),
        ("images", card.data, card.images_folder, data),
    ):
        if wanted not in (None, mine):
            found.append(f"{what} {mine[:8]} ({where})")
            asked.append(f"{what} {wanted[:8]}")
    if found:
        raise DataError(
            f"{folder} is a stale latent cache: made with {' and '.join(found)}, not with {' and '.join(asked)}.",
            hint="Make a new one beside it: "
            f"{prepare_command(card.images_folder, card.checkpoint)} (give the images and the checkpoint that you mean).",
        )


def prepare_command(images: str, checkpoint: str, *, out: Path | None = None) -> str:
    return f"smtool prepare {images} --latents {checkpoint}" + ("" if out is None else f" --out {out}")
