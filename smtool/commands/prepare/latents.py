"""`smtool prepare --latents`: encode images once and cache the latents for later trainings."""

import os
from collections.abc import Callable
from pathlib import Path

from smtool.commands.prepare.open_split import open_split, size_of
from smtool.data.cache.card import CacheDtype
from smtool.data.cache.write import estimated_bytes
from smtool.data.images.card import Split
from smtool.data.images.open import known_channels
from smtool.data.images.prepare import IMAGES_PER_SHARD
from smtool.data.images.progress import Report
from smtool.data.latents.card import LATENT_CARD_NAME, LatentCard
from smtool.data.latents.dct_measures import measures_lines, with_measured_eta
from smtool.data.latents.prepare import LatentPreparation, write_latents
from smtool.data.latents.shards import LatentShards, open_latents
from smtool.data.latents.statistics import StatsKind
from smtool.image_shape import SizeLike
from smtool.inference.tile_advice import advising_tiles
from smtool.tokenizers import identify, open_tokenizer
from smtool.tokenizers.dct import DCT, needs_measured_eta, stale_eta
from smtool.tokenizers.encode import EncodingPrecision, encoding_in
from smtool.tokenizers.tiled import tiled

ENCODE_BATCH = 32


def prepare_latents(
    checkpoint: str,
    *,
    data: str,
    split: Split = "train",
    image_size: SizeLike | None = None,
    out: Path | None = None,
    flip: bool = True,
    dtype: CacheDtype = "bf16",
    stats_images: int | None = None,
    seed: int = 0,
    batch: int = ENCODE_BATCH,
    workers: int = 0,
    device: str = "cpu",
    weights_dir: Path | None = None,
    announce: Callable[[Path, int], object] | None = None,
    report: Report | None = None,
    images_per_shard: int = IMAGES_PER_SHARD,
    tile: int | None = None,
    precision: EncodingPrecision = "fp32",
) -> Path:
    """Encode a split of `data` with the tokenizer `checkpoint` and return the cache's folder, which open_latents reads.

    data: a prepared folder; with image_size, any source. stats_images: number of images to measure the statistics on, None for
    all. tile: side in pixels of overlapping tiles that are encoded one at a time; None: whole images. precision: of the network;
    moments and statistics are computed from its results in float32. announce(folder, bytes) is called before encoding, with the
    expected size; report(done, total) after each batch, in the thread that writes. The same call resumes an unfinished cache and
    verifies a finished one. An eta=measured is measured on these images, and the number takes its place in the card.
    """
    identify(checkpoint)      # raises for an unknown name before anything is opened
    size, channels = size_of(data, image_size), known_channels(data)
    if needs_measured_eta(checkpoint):
        checkpoint = with_measured_eta(checkpoint, open_split(data, split, size, 3))
    autoencoder = open_tokenizer(
        checkpoint, device=device, image_size=size, image_channels=channels, weights_dir=weights_dir
    )
    images = open_split(data, split, size, autoencoder.image_channels)
    preparation = LatentPreparation(
        encoding_in(tiled(autoencoder, tile), precision),
        images,
        autoencoder_digest=autoencoder.digest,
        checkpoint=checkpoint,
        flip=flip,
        dtype=dtype,
        stats_images=stats_images,
        seed=seed,
        images_per_shard=images_per_shard,
        tile=tile,
    )
    folder = out or preparation.folder
    if announce:
        announce(folder, estimated_bytes(preparation))
    with advising_tiles(preparation.autoencoder, images.image_size, batch=None):
        write_latents(preparation, folder, batch=batch, workers=workers or os.cpu_count() or 1, report=report)
    return folder


def dct_lines(card: LatentCard) -> list[str]:
    """For a cache of DCT coefficients: its measures in words, the name that opens the tokenizer, a warning if eta is stale."""
    if card.dct is None or not isinstance(described := open_tokenizer(card.checkpoint).config, DCT):
        return []
    stale = stale_eta(described, card.dct.eta, card.images_folder)
    name = f"latents.autoencoder of these latents: {card.checkpoint}"
    return [*measures_lines(described, card.dct), name, *([stale] if stale else [])]


def cached_latents(
    preparation: LatentPreparation,
    *,
    out: Path | None = None,
    stats: StatsKind = "channel",
    batch: int = ENCODE_BATCH,
    workers: int = 0,
    report: Report | None = None,
) -> LatentShards:
    """Open the cache of this preparation; encode it first if it does not exist."""
    folder = out or preparation.folder
    if not (folder / LATENT_CARD_NAME).is_file():
        write_latents(preparation, folder, batch=batch, workers=workers or os.cpu_count() or 1, report=report)
    return open_latents(folder, autoencoder=preparation.autoencoder_digest, data=preparation.images.digest, stats=stats)
