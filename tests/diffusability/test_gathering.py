import time
from dataclasses import replace

import pytest
import torch

from smtool.data import open_images
from smtool.diffusability.gathering import Gathered, gather
from smtool.diffusability.inputs.subjects import PassSeconds, Subject, open_subjects
from smtool.diffusability.plan import Limit, Plan
from smtool.diffusability.protocol import NUM_KEPT, Protocol
from smtool.image_shape import ImageSize
from smtool.networks.tokenizer import Tokenizer, point_posterior
from smtool.report.console import Console
from smtool.spectrum import PHYSICAL, spectrum_of


@pytest.fixture
def shards(data):
    return open_images(data, "val", image_size=32)


def opened(names, data):
    return open_subjects(names, data=data, downsample_pad=None, weights_dir=None, device="cpu")[0]


def passed(shards, subjects, plan) -> Gathered:
    return gather(shards, subjects, [PHYSICAL], plan, device="cpu", console=Console(quiet=True))


SIZE = ImageSize(32, 32)


def without_limit(images: int) -> Plan:
    full = Protocol.full(images, SIZE)
    return Plan(full, full)


def test_every_autoencoder_encodes_every_image_once(shards, data, runs):
    gathered = passed(shards, opened([str(runs / "plain"), "control:crop"], data), without_limit(40))
    assert [latents.subject.encoded.images for latents in gathered.latents] == [40, 40]
    assert [latents.subject.decoded.images for latents in gathered.latents] == [0, 0]
    expected = spectrum_of(shards.read(range(40)).images, PHYSICAL).power
    torch.testing.assert_close(gathered.images.own(PHYSICAL).power, expected, rtol=1e-5, atol=1e-10)
    assert len(gathered.units.groups) == 40


def test_only_the_first_images_and_latents_are_kept_whole(shards, data):
    gathered = passed(shards, opened(["control:crop"], data), without_limit(48))
    torch.testing.assert_close(gathered.first_images, shards.read(range(NUM_KEPT)).images)
    latents = gathered.latents[0].first_latents
    torch.testing.assert_close(latents, gathered.latents[0].subject.codec.encode(gathered.first_images).mode())
    assert gathered.protocol == Protocol.full(48, SIZE)
    assert gathered.cuts == []


def test_a_smaller_side_measures_the_middle_of_every_image(shards, data):
    plan = replace(without_limit(16), protocol=Protocol(16, ImageSize(32, 24), 4))
    gathered = passed(shards, opened(["control:crop"], data), plan)
    torch.testing.assert_close(gathered.first_images, shards.read(range(16)).images[:, :, :, 4:28])
    assert gathered.size(gathered.latents[0]) == gathered.latents[0].first_latents.shape[-2:]
    assert gathered.cuts == ["decoded images 16 -> 4", "size 32 -> 32x24 px (crops of the middle)"]


def test_images_alone_are_passed_too(shards):
    gathered = passed(shards, [], without_limit(20))
    assert gathered.images.sizes == [(32, 32)]
    assert gathered.images.own(PHYSICAL).power.shape[0] == 20


def test_the_pass_ends_when_only_the_reserved_time_is_left(shards, data):
    """The passes are said to be so slow that the decoding sections take more than the limit."""
    full = Protocol.full(48, SIZE)
    plan = Plan(full, full, Limit(1e6), time.monotonic(), [PassSeconds(1e-6, 1e5, SIZE)])
    gathered = passed(shards, opened(["control:crop"], data), plan)
    assert gathered.stopped == "the time limit was reached"
    assert len(gathered.units.groups) == gathered.protocol.encoded == 16
    assert "band transfer not measured" in gathered.cuts


def test_after_encoding_the_sections_are_planned_with_the_measured_speed():
    """Images that take ten times the timed pass leave time for a tenth of the decodings, faster ones for more."""
    full = Protocol.full(100, SIZE)
    plan = Plan(full, full, Limit(2000.0), time.monotonic(), [PassSeconds(1.0, 1.0, SIZE)])
    as_timed = plan.after_encoding(115.0, encoded=100)
    slow = plan.after_encoding(1150.0, encoded=100)
    assert as_timed == full
    assert slow.decoding_seconds(plan.passes) <= 200 < as_timed.decoding_seconds(plan.passes)


def test_a_timed_pass_is_not_counted_and_encodes_only_without_a_decoder(shards, data, runs):
    images = shards.read(range(2)).images
    (subject,) = opened([str(runs / "plain")], data)
    found = subject.one_pass(images)
    assert min(found.encode, found.decode) > 0
    assert found.encode_at(ImageSize(16, 16)) == found.encode / 4
    assert (subject.encoded.images, subject.decoded.images) == (0, 0)
    assert Subject("encoder", EncodeOnly()).one_pass(images).decode == 0.0


class EncodeOnly(Tokenizer):
    """Averages over 4x4 cells; has no decoder."""

    downsample, latent_channels, deterministic = 4, 3, True

    @property
    def can_decode(self) -> bool:
        return False

    def encode(self, images):
        return point_posterior(torch.nn.functional.avg_pool2d(images, 4))
