"""Whether decoders follow the removal of latent frequencies: pictures, and the cost in PSNR, paired over photographs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.data import ImageShards
from smtool.data.batches import to_uint8
from smtool.features.pictures import as_rgb
from smtool.metrics.reconstruction import psnr
from smtool.networks.tokenizer import Tokenizer
from smtool.report.plots.strips import Block
from smtool.spectrum import fitted_low_pass
from smtool.spectrum.units import Units, mean_and_half_width

ROWS_REMOVED = (0, 8, 10, 12)
TARGET = "image, low-passed"
PHOTOGRAPHS = ("coffee", "coins")
NUM_CROPS = 48
_BATCH = 16


@dataclass(frozen=True)
class Following:
    """psnr: of D(LP z) against LP x in dB, by label: (NUM_CROPS, len(ROWS_REMOVED)). z is the mean of the posterior."""

    psnr: Mapping[str, Tensor]
    units: Units

    def change(self, label: str) -> tuple[float, float]:
        """Change of PSNR in dB by the last removal: mean and 95 % half-width over photographs."""
        return self._mean(self._changes(label))

    def difference(self, label: str, other: str) -> tuple[float, float]:
        """Change of one autoencoder minus that of another, paired by crop: mean and 95 % half-width over photographs."""
        return self._mean(self._changes(label) - self._changes(other))

    def gap(self, label: str) -> float:
        """PSNR(D(z), x) - PSNR(D(LP z), LP x) in dB for the last removal, mean over photographs."""
        return -self.change(label)[0]

    def _changes(self, label: str) -> Tensor:
        return self.psnr[label][:, -1] - self.psnr[label][:, 0]

    def _mean(self, values: Tensor) -> tuple[float, float]:
        mean, half_width = mean_and_half_width(self.units.collapse(values[:, None]))
        return float(mean), float(half_width)


@torch.no_grad()
def measure_following(autoencoders: Mapping[str, Tokenizer], images: ImageShards, count: int | None = None) -> Following:
    """Over the first `count` images (default: NUM_CROPS), on the device of each autoencoder."""
    first = images.read(list(range(min(count or NUM_CROPS, len(images)))))
    found = {
        label: torch.cat([_decodings(autoencoder, part.images)[2] for part in first.split(_BATCH)])
        for label, autoencoder in autoencoders.items()
    }
    groups = images.groups or [str(number) for number in range(len(images))]
    return Following(found, Units("photograph" if images.groups else "image", groups[: len(first.images)]))


@torch.no_grad()
def strips(autoencoders: Mapping[str, Tokenizer], images: ImageShards) -> list[Block]:
    """The first validation crop of each of PHOTOGRAPHS (where there are none, the first image), low-passed and decoded.

    Rows: TARGET is LP x, the low-passed image; an autoencoder's row is D(LP z), decoded from the low-passed latent, with its PSNR
    against LP x.
    """
    groups = images.groups or []
    numbers = [groups.index(name) for name in PHOTOGRAPHS if name in groups] or [0]
    return [_block(images.read([number]).images, autoencoders) for number in numbers]


def _block(image: Tensor, autoencoders: Mapping[str, Tokenizer]) -> Block:
    tiles: dict[str, Tensor] = {}
    notes: dict[str, Sequence[str]] = {}
    for label, autoencoder in autoencoders.items():
        targets, decoded, found = _decodings(autoencoder, image)
        tiles.setdefault(TARGET, to_uint8(as_rgb(targets[0])))
        tiles[label] = to_uint8(as_rgb(decoded[0]))
        notes[label] = [f"{value:.1f} dB" for value in found[0].tolist()]
    return Block(tiles, notes)


def _decodings(autoencoder: Tokenizer, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """LP x and D(LP z) for each removal, (B, len(ROWS_REMOVED), 3, H, W), and their PSNR (B, len(ROWS_REMOVED))."""
    images = images.to(autoencoder.device)
    latents = autoencoder.encode(images).mode()
    targets = [fitted_low_pass(images, rows) for rows in ROWS_REMOVED]
    decoded = [autoencoder.decode(fitted_low_pass(latents, rows)) for rows in ROWS_REMOVED]
    found = [psnr(one, target) for one, target in zip(decoded, targets, strict=True)]
    return torch.stack(targets, 1).cpu(), torch.stack(decoded, 1).cpu(), torch.stack(found, 1).cpu()
