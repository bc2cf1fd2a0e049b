"""Image and latent data: sources, shards, caches, and readers that yield batches.

Names are imported on first use, so that the worker processes of `prepare` do not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smtool.data.batches import ImageBatch, LatentBatch, to_signed, to_uint8
    from smtool.data.images.card import DatasetCard, read_card, verify
    from smtool.data.images.loading import training_batches, validation_batches
    from smtool.data.images.open import open_images
    from smtool.data.images.reader import ImageShards
    from smtool.data.images.streaming import stream_images
    from smtool.data.latents.check import LatentCheck, check_latents
    from smtool.data.latents.reader import encoded_batches, image_batches, latent_batches
    from smtool.data.latents.shards import LatentShards, open_latents
    from smtool.data.latents.statistics import measure_latents
    from smtool.data.order import batch_indices

_HOMES = {
    "batches": ("ImageBatch", "LatentBatch", "to_signed", "to_uint8"),
    "images.card": ("DatasetCard", "read_card", "verify"),
    "images.loading": ("training_batches", "validation_batches"),
    "images.open": ("open_images",),
    "images.reader": ("ImageShards",),
    "images.streaming": ("stream_images",),
    "latents.check": ("LatentCheck", "check_latents"),
    "latents.reader": ("encoded_batches", "image_batches", "latent_batches"),
    "latents.shards": ("LatentShards", "open_latents"),
    "latents.statistics": ("measure_latents",),
    "order": ("batch_indices",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DatasetCard",
    "ImageBatch",
    "ImageShards",
    "LatentBatch",
    "LatentCheck",
    "LatentShards",
    "batch_indices",
    "check_latents",
    "encoded_batches",
    "image_batches",
    "latent_batches",
    "measure_latents",
    "open_images",
    "open_latents",
    "read_card",
    "stream_images",
    "to_signed",
    "to_uint8",
    "training_batches",
    "validation_batches",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"smtool.data.{_HOME[name]}"), name)
