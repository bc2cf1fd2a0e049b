"""`smtool export --align`: the affine map of every channel to the latents of another autoencoder, fitted on images."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from smtool.checkpoints.foreign.origin import Origin
from smtool.data import ImageShards, validation_batches
from smtool.diffusability.gathering import units_of
from smtool.diffusability.inputs.pairs import LatentPairs, unlike_latents
from smtool.diffusability.inputs.subjects import Subject, open_measured, open_subjects
from smtool.diffusability.sections.drift import LARGEST_UNEXPLAINED
from smtool.errors import CheckpointError, DataError
from smtool.inference.reconstruct import images_at_once
from smtool.networks.folding import folded
from smtool.networks.layers import DownsamplePad
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import Autoencoder
from smtool.networks.tokenizer import Tokenizer
from smtool.report.console import Console
from smtool.spectrum.drift import AffineMap, fit_channels, unexplained
from smtool.tokenizers.trainable import open_trainable

BUILTIN = "builtin:photos"
LEAST_CORRELATION = 0.1
"""Of a channel with that of the reference, in absolute value; below it, no map of the channel makes sense."""
NUM_IMAGES = 64
"""Images that are encoded, half of them to fit the map. A map of a channel has two numbers."""


@dataclass(frozen=True)
class Alignment:
    """The map scale * z + shift of latents z, (C,) float64 each, to the coordinates of a reference.

    reference, digest: name and digest of the reference; stats: of the reference, None if it states none. data: name of the
    images; fitted, evaluated: their numbers. before, after: share of the variance of the reference's latents that z miss, on
    images that the map was not fitted on.
    """

    reference: str
    digest: str
    stats: LatentStats | None
    scale: Tensor
    shift: Tensor
    data: str
    fitted: int
    evaluated: int
    before: float
    after: float

    def folded(self, network: Tokenizer) -> Autoencoder:
        """The aligned network. Its statistics are the reference's, which its transformers normalize with; else its own, mapped.

        Raises CheckpointError for the family of TAESD.
        """
        found = _checked(network)
        result = folded(found, self.scale, self.shift)
        result.stats = self._mapped(found.stats) if self.stats is None else _plain(self.stats)
        return result

    def in_form_of(self, origin: Origin, network: Tokenizer, *, of_patches: bool) -> Origin:
        """The origin of the aligned network. Raises CheckpointError if its form cannot hold the map.

        of_patches: whether the original's file has statistics of 2x2 patches of latents.
        """
        if not _checked(network).config.quant_convs:
            raise CheckpointError(
                f"{origin.place} has no 1x1 convolution before its decoder; only there the map is exact at the edges of images.",
                hint="Use --to diffusers or --to smtool, which add one.",
            )
        if of_patches and self.digest != origin.digest:
            raise CheckpointError(
                f"{origin.place} holds statistics of patches of its own latents, which are not those of {self.reference}.",
                hint=f"Use --align {origin.place}, or --to smtool.",
            )
        return replace(origin, patch_mean=None, patch_variance=None)

    def to_metadata(self) -> dict[str, Any]:
        facts = {name: value for name, value in vars(self).items() if name not in ("scale", "shift", "stats")}
        return {**facts, "scale": self.scale.tolist(), "shift": self.shift.tolist()}

    def sentences(self) -> Iterator[str]:
        """What the map does, for the console."""
        yield (
            f"aligned to {self.reference}: on {self.evaluated} images of {self.data} that the map was not fitted on, latents "
            f"miss {100 * self.after:.2g} % of the variance of its latents (without the map {100 * self.before:.2g} %)"
        )
        if not self.after <= LARGEST_UNEXPLAINED:
            yield (
                f"This is more than {100 * LARGEST_UNEXPLAINED:.2g} %: transformers trained on latents of {self.reference} may "
                "not fit. `smtool spectrum` measures what the decoder loses."
            )

    def card_section(self) -> str:
        """A section of the model card."""
        rows = "\n".join(
            f"| {index} | {scale:.6g} | {shift:.6g} |"
            for index, (scale, shift) in enumerate(zip(self.scale.tolist(), self.shift.tolist(), strict=True))
        )
        return (
            f"## Alignment\n\nIts latents are in the coordinates of {self.reference} (digest `{self.digest}`), so that "
            f"transformers trained on those latents can use its decoder. An affine map of every channel, scale * z + shift, "
            f"fitted on {self.fitted} images of {self.data}, is folded into the 1x1 convolutions between encoder and decoder; "
            f"reconstructions are unchanged. On {self.evaluated} other images, latents miss {100 * self.after:.2g} % of the "
            f"variance of the reference's posterior means, without the map {100 * self.before:.2g} %.\n\n"
            f"| channel | scale | shift |\n|---|---|---|\n{rows}"
        )

    def _mapped(self, stats: LatentStats | None) -> LatentStats | None:
        if stats is None:
            return None
        scale, shift = self.scale.float(), self.shift.float()
        residual = None if stats.residual is None else (scale.sign() * stats.residual)
        return LatentStats("channel", scale * stats.mean + shift, scale.abs() * stats.std, stats.count, stats.data, residual)


@torch.no_grad()
def find_alignment(
    what: str, reference: str, *, data: str | None, downsample_pad: DownsamplePad | None, console: Console
) -> Alignment:
    """Fit the map of the latents of `what` to those of `reference`.

    The decoder gets the map that turns latents of the reference into those nearest to its own latents of the same images (least
    squares over posterior means); the encoder gets its inverse. data: as for `smtool spectrum`, default
    builtin:photos; NUM_IMAGES of its validation images. Raises CheckpointError if `what` cannot hold the map, if latents have
    unlike shapes, and if a channel is lost; DataError for too few images.
    """
    _checked(open_trainable(what, downsample_pad=downsample_pad))
    data = data or BUILTIN
    (earlier, later), size = open_subjects(
        [reference, what], data=data, downsample_pad=downsample_pad, weights_dir=None, device="cpu"
    )
    if why := unlike_latents(earlier, later, size):
        raise CheckpointError(f"{what} cannot be aligned to {reference}: {why.removeprefix('not measured: ')}.")
    shards = open_measured(data, size, console, channels=later.codec.image_channels)
    pairs = _pairs(earlier, later, shards, console)
    if pairs.fit is None or not pairs.held_out:
        raise DataError(f"{data} has too few images to fit a map and to evaluate it.", hint="Pass more with --data.")
    correlation = pairs.fit.correlation().nan_to_num()
    least = int(correlation.abs().argmin())
    if abs(correlation[least]) < LEAST_CORRELATION:
        raise CheckpointError(
            f"{what} cannot be aligned to {reference}: their channels {least} have a correlation of {correlation[least]:.2f}."
        )
    to_later = fit_channels(pairs.fit.swapped())
    scale = 1 / to_later.scale
    shift = -scale * to_later.shift
    weights = 1 / pairs.fit.covariance().diagonal()[: len(scale)]
    missed = [
        unexplained(pairs.held_out, one, weights)[0].total.item()
        for one in (AffineMap.identity(len(scale)), AffineMap(scale.diag(), shift))
    ]
    found = Alignment(
        reference, earlier.codec.digest, earlier.codec.stats, scale, shift, data, pairs.fit.num_images,
        sum(one.num_images for one in pairs.held_out), *missed,
    )  # fmt: skip
    for sentence in found.sentences():
        console.print(sentence)
    return found


def _pairs(earlier: Subject, later: Subject, shards: ImageShards, console: Console) -> LatentPairs:
    count = min(NUM_IMAGES, len(shards))
    pairs, done = LatentPairs(earlier, later, units_of(shards), keep=0), 0
    with console.progress("encoding images") as report:
        for batch in validation_batches(shards, batch=images_at_once(*shards.image_size), limit=count):
            pairs.add(earlier.encode(batch.images).mode(), later.encode(batch.images).mode())
            done += len(batch.images)
            report(done, count)
    return pairs


def _checked(network: Tokenizer) -> Autoencoder:
    if not isinstance(network, Autoencoder):
        raise CheckpointError(
            f"{network.source} is {network.architecture}: its decoder begins with 3 tanh(z / 3), which has no weights, so no map "
            "of latents can be folded into it.",
            hint="--align needs an SD-VAE.",
        )
    return network


def _plain(stats: LatentStats) -> LatentStats:
    """Statistics without a recolouring, which belongs to a transformer."""
    return stats if stats.recolouring is None else replace(stats, kind="channel", recolouring=None)
