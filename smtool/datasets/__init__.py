"""Images in, shards out, batches back: sources, shards and readers.

Names are imported on first use, so that the worker processes of `prepare` do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smtool.datasets.card import DatasetCard, read_card, verify
    from smtool.datasets.images import open_images
    from smtool.datasets.latents import LatentShards, open_latents
    from smtool.datasets.latents_check import LatentCheck, check_latents
    from smtool.datasets.latents_loading import encoded_batches, latent_batches
    from smtool.datasets.latents_measure import measure_latents
    from smtool.datasets.loading import training_batches, validation_batches
    from smtool.datasets.order import batch_indices
    from smtool.datasets.reader import ImageShards
    from smtool.datasets.streaming import stream_images
    from smtool.datasets.types import ImageBatch, LatentBatch, to_signed, to_uint8

_HOMES = {
    "card": ("DatasetCard", "read_card", "verify"),
    "images": ("open_images",),
    "latents": ("LatentShards", "open_latents"),
    "latents_check": ("LatentCheck", "check_latents"),
    "latents_loading": ("encoded_batches", "latent_batches"),
    "latents_measure": ("measure_latents",),
    "loading": ("training_batches", "validation_batches"),
    "order": ("batch_indices",),
    "reader": ("ImageShards",),
    "streaming": ("stream_images",),
    "types": ("ImageBatch", "LatentBatch", "to_signed", "to_uint8"),
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
    return getattr(import_module(f"smtool.datasets.{_HOME[name]}"), name)
