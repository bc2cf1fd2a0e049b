from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from smtool.data import open_images
from smtool.diffusability.gathering import NUM_KEPT, Counts, Gathered, affordable, gather
from smtool.diffusability.inputs.subjects import Meter, open_subjects
from smtool.report.console import Console
from smtool.spectrum import PHYSICAL, spectrum_of


@pytest.fixture
def shards(data):
    return open_images(data, "val", image_size=32)


def passed(shards, names, data, *, limit, budget=None) -> Gathered:
    subjects, _ = open_subjects(names, data=data, downsample_pad=None, weights_dir=None, device="cpu")
    console = Console(quiet=True)
    return gather(shards, subjects, [PHYSICAL], limit=limit, budget=budget, device="cpu", console=console)


def test_every_autoencoder_encodes_every_image_once(shards, data, runs):
    gathered = passed(shards, [str(runs / "plain"), "control:crop"], data, limit=40)
    assert [latents.subject.encoded.images for latents in gathered.latents] == [40, 40]
    assert [latents.subject.decoded.images for latents in gathered.latents] == [0, 0]
    expected = spectrum_of(shards.read(range(40)).images, PHYSICAL).power
    torch.testing.assert_close(gathered.images.own(PHYSICAL).power, expected, rtol=1e-5, atol=1e-10)
    assert len(gathered.units.groups) == 40


def test_only_the_first_images_and_latents_are_kept_whole(shards, data):
    gathered = passed(shards, ["control:crop"], data, limit=48)
    torch.testing.assert_close(gathered.first_images, shards.read(range(NUM_KEPT)).images)
    latents = gathered.latents[0].first_latents
    torch.testing.assert_close(latents, gathered.latents[0].subject.codec.encode(gathered.first_images).mode())
    assert gathered.counts == Counts.of(48)


def test_a_budget_reserves_the_time_of_the_sections(shards, data, monkeypatch):
    monkeypatch.setattr("smtool.diffusability.gathering.affordable", lambda *_, **__: Counts(4, 4, 4, seconds=1e9))
    gathered = passed(shards, ["control:crop"], data, limit=48, budget=1e6)
    assert gathered.stopped == "the budget was spent"
    assert (len(gathered.units.groups), gathered.counts.low_pass) == (16, 4)


def test_images_alone_are_passed_too(shards, data):
    gathered = passed(shards, [], data, limit=20)
    assert gathered.images.sizes == [(32, 32)]
    assert gathered.images.own(PHYSICAL).power.shape[0] == 20


@dataclass
class Slow:
    """A subject whose meter counts the given seconds per image."""

    encode_seconds: float
    decode_seconds: float
    can_decode: bool = True

    def __post_init__(self) -> None:
        self.encoded, self.decoded = Meter(16, 16 * self.encode_seconds), Meter()
        self.codec = SimpleNamespace(can_decode=self.can_decode)

    def decode(self, latents: torch.Tensor) -> None:
        self.decoded.images += len(latents)
        self.decoded.seconds += self.decode_seconds * len(latents)

    @property
    def latents(self) -> SimpleNamespace:
        return SimpleNamespace(subject=self, first_latents=torch.zeros(16, 1, 2, 2))


def test_without_a_budget_the_counts_are_the_default_ones():
    assert Counts.of(240) == Counts(low_pass=32, transfer=16, shifts=16)
    assert Counts.of(6) == Counts(6, 6, 6)


@pytest.mark.parametrize(("budget", "images"), [(800.0, 32), (690.0, 16), (400.0, 8), (150.0, 4), (110.0, 2), (1.0, 2)])
def test_a_budget_allows_the_most_images_whose_passes_fit(budget, images):
    """32 images: 15 x 32 + 9 x 16 + 3 x 16 decodes and 3 x 16 encodes; all others 27 decodes and 3 encodes per image."""
    counts = affordable([Slow(encode_seconds=0.5, decode_seconds=1.0).latents], budget=budget, limit=1000)
    assert counts.low_pass == images
    assert counts.transfer == counts.shifts == min(16, images)
    expected = 672 + 24 if images == 32 else images * (27 + 1.5)
    assert counts.seconds == pytest.approx(expected)


def test_two_autoencoders_share_a_budget():
    one = affordable([Slow(0.0, 1.0).latents], budget=675.0, limit=1000)
    both = affordable([Slow(0.0, 1.0).latents, Slow(0.0, 1.0).latents], budget=675.0, limit=1000)
    assert (one.low_pass, both.low_pass) == (32, 8)


def test_an_encoder_without_decoder_needs_time_for_shift_errors_only():
    counts = affordable([Slow(1.0, 100.0, can_decode=False).latents], budget=48.0, limit=1000)
    assert (counts.low_pass, counts.seconds) == (32, 48.0)
