"""Statistics of the latents of a fine-tuned autoencoder, measured anew, and the form of the file it was fine-tuned from."""

from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from smtool.checkpoints.foreign.origin import Origin
from smtool.commands.train.start import Start
from smtool.data import ImageShards, measure_latents
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.networks.trainable import TrainableAutoencoder
from smtool.recipe import TrainAE
from smtool.training.selection import evaluating

STATS_IMAGES = 512


def describe_latents(
    start: Start, tables: TrainAE, autoencoder: TrainableAutoencoder, images: ImageShards
) -> dict[str, dict[str, Any]]:
    """Set the autoencoder's statistics; returns entries for the metadata of its file."""
    with evaluating(autoencoder):
        autoencoder.stats = latent_statistics(start, tables, autoencoder, images)
        origin = origin_of(start, tables)
    return {} if origin is None else {"origin": origin.to_metadata()}


def latent_statistics(start: Start, tables: TrainAE, autoencoder: Tokenizer, images: ImageShards) -> LatentStats | None:
    """Statistics of the same kind as the original's, of sampled latents of the first training images.

    Those of the original if the encoder was frozen; None if the original is an autoencoder of smtool without statistics, which
    `train-dit` measures itself. A scalar shift is measured only if the original has one.
    """
    before = start.original.stats
    if not tables.trains_encoder or (before is None and not start.published):
        return before
    if start.normalizes_patches:
        return replace(_measured(images, Patches(autoencoder), "channel", tables), kind="patch")
    kind = "scalar" if before is None else before.kind
    if kind == "scalar" and tables.model.kind == "dc-ae":      # whose published scale is 1 / root mean square
        return _measured(images, autoencoder, "rms", tables)
    found = _measured(images, autoencoder, kind, tables)
    if kind == "channel" or before is None or not before.mean.any():
        return found
    assert found.residual is not None
    return replace(found, mean=found.residual * found.std, residual=found.residual * 0)


def origin_of(start: Start, tables: TrainAE) -> Origin | None:
    """The published file from which the weights descend; None if there is none."""
    earlier = start.metadata.get("origin")
    if earlier is None:
        return Origin(start.place, start.original.digest) if start.published else None
    origin = Origin.from_metadata(earlier)
    return replace(origin, patch_mean=None, patch_variance=None) if tables.trains_encoder else origin


def statistics_line(before: LatentStats | None, after: LatentStats | None) -> str | None:
    """A line for the log: the new scale and shift beside the old; None if there are none, or they are unchanged."""
    if after is None or after is before:
        return None
    was = "" if before is None else f" instead of {_shown(before)}"
    return f"latents measured anew on {after.count:,} samples: {_shown(after)}{was}"


class Patches(Tokenizer):
    """A tokenizer whose latents are the 2x2 patches of another's: (B, 4 C, h / 2, w / 2)."""

    def __init__(self, inner: Tokenizer) -> None:
        super().__init__()
        self.inner = inner

    def encode(self, images: Tensor) -> Posterior:
        posterior = self.inner.encode(images)
        return Posterior(F.pixel_unshuffle(posterior.mean, 2), F.pixel_unshuffle(posterior.logvar, 2))


def _measured(images: ImageShards, autoencoder: Tokenizer, kind: str, tables: TrainAE) -> LatentStats:
    return measure_latents(
        images, autoencoder, kind=kind, count=STATS_IMAGES, flip=False, batch=tables.data.batch,  # type: ignore[arg-type]
        workers=tables.data.workers,
    )


def _shown(stats: LatentStats) -> str:
    if stats.kind != "scalar":
        channels = "channels of 2x2 patches" if stats.kind == "patch" else "channels"
        return f"std {stats.std.mean().item():.4g} (mean over {len(stats.std)} {channels})"
    shift = stats.mean.item()
    return f"scaling factor {1 / stats.std.item():.4g}" + (f", shift {shift:.4g}" if shift else "")
