"""latents.json, the card of a latent cache: its contents, its autoencoder and its images."""

from pathlib import Path
from typing import ClassVar, Literal

from smtool.data.cache.card import CacheCard, CacheDtype, Origin, absent, departures, refuse_stale
from smtool.data.images.card import parse_card
from smtool.data.latents.dct_measures import DCTMeasures
from smtool.data.latents.statistics import Measured
from smtool.tokenizers.encode import EncodingPrecision

LATENT_CARD_NAME = "latents.json"


class LatentCard(CacheCard):
    """The contents of latents.json."""

    noun: ClassVar[str] = "latent"
    format: Literal["smtool latents 1"] = "smtool latents 1"
    autoencoder: str
    """Digest of the autoencoder."""
    checkpoint: str
    """Path of the autoencoder when the cache was made."""
    latent_shape: tuple[int, int, int]
    """(C, h, w)."""
    seed: int
    """Seed of the noise with which latents were sampled for the statistics."""
    measured: Measured
    tile: int | None = None
    """Side in pixels of the overlapping tiles that were encoded; None: whole images."""
    precision: EncodingPrecision = "fp32"
    """In which images were encoded."""
    dct: DCTMeasures | None = None
    """For `dct:BxM` only: eta and entropies of the images, and what the coefficients lose."""

    def command(self) -> str:
        return prepare_command(self.images_folder, self.checkpoint)


def latents_folder(
    data_name: str, *, autoencoder: str, data: str, flip: bool, dtype: CacheDtype, precision: EncodingPrecision
) -> Path:
    """Default folder of a cache; autoencoder and data are digests. The name states settings other than the defaults."""
    encoded = "" if precision == "fp32" else f"-encoded-{precision}"
    return Path("data") / "latents" / f"{data_name}-{autoencoder[:8]}-{data[:8]}{departures(flip=flip, dtype=dtype)}{encoded}"


def read_latent_card(folder: Path) -> LatentCard:
    """The card of a latent cache. Raises DataError if it is missing or invalid."""
    path = folder / LATENT_CARD_NAME
    if path.is_file():
        return parse_card(path, LatentCard)
    command = prepare_command("IMAGES", "ckpt.safetensors", out=folder)
    raise absent(folder, noun="latent", card_name=LATENT_CARD_NAME, option="--latents", command=command)


def refuse_stale_latents(folder: Path, card: LatentCard, *, autoencoder: str | None, data: str | None) -> None:
    """Raise DataError unless the cache was made by this autoencoder from these images (digests; None: any)."""
    origins = [
        Origin("autoencoder", card.autoencoder, autoencoder, card.checkpoint),
        Origin("images", card.data, data, card.images_folder),
    ]
    hint = f"Make a new cache: {card.command()} (with your images and your checkpoint)."
    refuse_stale(folder, card, origins, hint=hint)


def prepare_command(images: str, checkpoint: str, *, out: Path | None = None) -> str:
    return f"smtool prepare {images} --latents {checkpoint}" + ("" if out is None else f" --out {out}")
