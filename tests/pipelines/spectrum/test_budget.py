from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from smtool.pipelines.spectrum.budget import Counts, affordable
from smtool.pipelines.spectrum.passes import Passes


@dataclass
class Slow:
    """A subject whose network takes so many seconds an image, by its own clock."""

    encode_seconds: float
    decode_seconds: float
    can_decode: bool = True

    def __post_init__(self) -> None:
        self.meter = SimpleNamespace(encode=Passes(16, 16 * self.encode_seconds), decode=Passes())
        self.codec = SimpleNamespace(can_decode=self.can_decode, decode=self._decode)
        self.rings = SimpleNamespace(first_latents=torch.zeros(16, 1, 2, 2))

    def _decode(self, latents: torch.Tensor) -> None:
        self.meter.decode.images += len(latents)
        self.meter.decode.seconds += self.decode_seconds * len(latents)


def test_without_a_budget_the_numbers_are_those_of_the_definition_sheet():
    assert Counts.default(240) == Counts(low_pass=32, transfer=16, shifts=16)
    assert Counts.default(6) == Counts(6, 6, 6)


@pytest.mark.parametrize(("budget", "images"), [(800.0, 32), (690.0, 16), (400.0, 8), (150.0, 4), (110.0, 2), (1.0, 2)])
def test_a_budget_pays_for_the_most_images_whose_passes_fit(budget, images):
    """32 images: 15 x 32 + 9 x 16 + 3 x 16 decodes and 3 x 16 encodes; all others 27 decodes and 3 encodes an image."""
    counts = affordable([Slow(encode_seconds=0.5, decode_seconds=1.0)], budget=budget, limit=1000)
    assert counts.low_pass == images
    assert counts.transfer == counts.shifts == min(16, images)
    expected = 672 + 24 if images == 32 else images * (27 + 1.5)
    assert counts.seconds == pytest.approx(expected)


def test_two_autoencoders_share_a_budget():
    one = affordable([Slow(0.0, 1.0)], budget=675.0, limit=1000)
    both = affordable([Slow(0.0, 1.0), Slow(0.0, 1.0)], budget=675.0, limit=1000)
    assert (one.low_pass, both.low_pass) == (32, 8)


def test_an_encoder_alone_pays_for_its_shifts_only():
    counts = affordable([Slow(1.0, 100.0, can_decode=False)], budget=48.0, limit=1000)
    assert (counts.low_pass, counts.seconds) == (32, 48.0)
