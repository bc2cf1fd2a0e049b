"""Statistics of the latents of two autoencoders on the same images, accumulated in the pass over all images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smtool.diffusability.inputs.subjects import Subject
from smtool.image_shape import ImageSize
from smtool.spectrum.drift import PairMoments
from smtool.spectrum.units import Units

NUM_GROUPS = 32
"""Largest number of groups of units for intervals; the moments of each group are stored."""
_LARGEST_MOMENTS = 2**25
"""Numbers in the moments of all groups together (256 MiB); with more channels there are fewer groups."""


class LatentPairs:
    """Moments of the posterior means of a reference and of another autoencoder, and the means of some images.

    Units with even numbers are for fits, those with odd numbers for evaluation, so that crops of one photograph are all in one
    half. fit: moments of the first half, None before there are any; held_out: those of the second half, by group of units.
    """

    def __init__(self, reference: Subject, other: Subject, units: Units, *, keep: int) -> None:
        """units: of all images of the pass; keep: number of first images whose means are kept, if they are not for fits."""
        self.reference, self.other, self.units = reference, other, units
        self._number, self._keep = units.numbers(), keep
        self.fit: PairMoments | None = None
        self._groups: dict[int, PairMoments] = {}
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._seen = 0

    def add(self, earlier: Tensor, later: Tensor) -> None:
        """Add the posterior means (B, C, h, w) of the next images, of the reference and of the other autoencoder."""
        numbers = self._number[self._seen : self._seen + len(earlier)]
        for index, number in enumerate(numbers.tolist()):
            one = slice(index, index + 1)
            moments = PairMoments.of(earlier[one], later[one])
            if number % 2 == 0:
                self.fit = moments if self.fit is None else self.fit + moments
            else:
                group = number // 2 % self._num_groups(moments)
                self._groups[group] = self._groups[group] + moments if group in self._groups else moments
                if self._seen + index < self._keep:
                    self._kept.append((earlier[one], later[one]))
        self._seen += len(earlier)

    @property
    def held_out(self) -> Sequence[PairMoments]:
        return list(self._groups.values())

    @property
    def kept_places(self) -> list[int]:
        """Numbers of the images whose means are kept, in order."""
        return [index for index in range(min(self._seen, self._keep)) if self._number[index] % 2]

    def kept(self, count: int) -> tuple[Tensor, Tensor]:
        """Posterior means of the reference and of the other, of the first `count` images of `kept_places`; count: 1 or more."""
        earlier, later = zip(*self._kept[:count], strict=True)
        return torch.cat(earlier), torch.cat(later)

    @staticmethod
    def _num_groups(moments: PairMoments) -> int:
        return max(1, min(NUM_GROUPS, _LARGEST_MOMENTS // moments.moments.numel()))


def unlike_latents(reference: Subject, other: Subject, size: ImageSize) -> str:
    """Why the latents of two autoencoders cannot be compared channel by channel, or "" if they can. size: of the images."""
    shapes = [(one.codec.latent_channels, *one.latent_size(size)) for one in (reference, other)]
    if shapes[0] == shapes[1]:
        return ""
    its, wanted = ("x".join(map(str, shape)) for shape in reversed(shapes))
    return f"not measured: its latents are {its}, those of {reference.label} are {wanted}"


def any_alike(subjects: Sequence[Subject], reference: str | None, size: ImageSize) -> bool:
    """Whether any autoencoder has latents of the same shape as the one with the label `reference`; False for None."""
    chosen = next((one for one in subjects if one.label == reference), None)
    return chosen is not None and any(one is not chosen and not unlike_latents(chosen, one, size) for one in subjects)
