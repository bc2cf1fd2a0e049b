"""What `check_latents` accepts and rejects, on latents with an exactly known reconstruction."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smtool.data import LatentBatch, check_latents, to_uint8
from smtool.data.latents.check import CEILING_DB
from smtool.errors import DataError
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.spectrum import RadialPower, recolouring
from smtool.tokenizers import open_tokenizer

STATS = LatentStats("scalar", torch.tensor([0.0]), torch.tensor([0.4]), count=1000, data="d" * 64)


class Folding(Tokenizer):
    """An autoencoder that folds 2x2 pixels into 12 channels and adds an offset: its reconstruction is perfect."""

    def __init__(self, offset=0.0):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset))

    def encode(self, images):
        mean = F.pixel_unshuffle(images, 2) + self.offset
        return Posterior(mean, torch.full_like(mean, -12.0))

    def decode(self, latents):
        return F.pixel_shuffle(latents - self.offset, 2)


def pictures(count, seed=0):
    """Smooth random images of various brightness, as uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator) * 0.4 + torch.randn(count, 1, 1, 1, generator=generator) * 0.15
    return to_uint8(F.interpolate(coarse, size=(16, 16), mode="bilinear").clamp(-1, 1))


def batches(autoencoder, images, *, sizes=(40, 24)):
    signed = images.float() / 127.5 - 1
    posterior = autoencoder.encode(signed)
    found, at = [], 0
    for size in sizes:
        part = slice(at, at + size)
        ids = tuple(f"{n:08d}" for n in range(at, at + size))
        mean, logvar = posterior.mean[part].detach(), posterior.logvar[part].detach()
        found.append(LatentBatch(mean, logvar, None, ids, images=images[part]))
        at += size
    return found


def measured(found, kind):
    latents = torch.cat([batch.mean for batch in found]).double()
    axes = (0, 2, 3) if kind == "channel" else (0, 1, 2, 3)
    mean, std = (value.float().reshape(-1) for value in (latents.mean(axes), latents.std(axes)))
    return LatentStats(kind, mean, std, count=len(latents), data="d" * 64, residual=torch.zeros(len(mean)))


@pytest.mark.parametrize("kind", ["channel", "scalar"])
def test_latents_with_their_own_statistics_pass_and_are_described(kind):
    autoencoder = Folding(offset=3.0)
    found = batches(autoencoder, pictures(64))
    check = check_latents(found, measured(found, kind), autoencoder)
    assert check.num_latents == 64
    assert len(check.mean) == len(check.std) == (12 if kind == "channel" else 1)
    assert max(map(abs, check.mean)) < 0.01
    assert all(abs(value - 1) < 0.01 for value in check.std)
    assert check.round_trip_db > 100
    assert check.psnr == check.direct_psnr == CEILING_DB


def test_recoloured_latents_pass_and_those_with_another_filters_spectrum_are_stopped():
    autoencoder = Folding(offset=3.0)
    found = batches(autoencoder, pictures(64))
    latents, images = (torch.cat([getattr(batch, name) for batch in found]).double() for name in ("mean", "images"))
    stats = replace(measured(found, "channel"), kind="spectral")
    own = recolouring(RadialPower.of(latents, images), stats.mean, stats.std, 1.0)
    check = check_latents(found, replace(stats, recolouring=own), autoencoder)
    assert len(check.std) == 12 and all(abs(value - 1) < 0.02 for value in check.std)
    assert check.round_trip_db > 100
    others = torch.randn(64, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = recolouring(RadialPower.of(others, images), torch.zeros(12), torch.ones(12), 1.0)
    with pytest.raises(DataError, match=r"should have std 1(.|\n)*in channel(.|\n)*spectral \(flatten = 1.0\), of 64 latents"):
        check_latents(found, replace(stats, recolouring=noise), autoencoder)


def test_latents_of_other_images_from_the_same_distribution_pass():
    autoencoder = Folding()
    stats = measured(batches(autoencoder, pictures(512, seed=99), sizes=(512,)), "channel")
    for seed in range(10):
        for sizes in ((2,), (5, 3), (32, 32)):
            check_latents(batches(autoencoder, pictures(sum(sizes), seed), sizes=sizes), stats, autoencoder)


@pytest.mark.parametrize("factor", [0.18215, 0.5, 2.0, 5.49])
@pytest.mark.parametrize("kind", ["channel", "scalar"])
def test_a_wrong_std_is_stopped(kind, factor):
    autoencoder = Folding()
    found = batches(autoencoder, pictures(64))
    stats = measured(found, kind)
    wrong = replace(stats, std=stats.std * factor)
    with pytest.raises(DataError, match=r"should have std 1, but those of 64 images have") as caught:
        check_latents(found, wrong, autoencoder)
    assert float(re.search(r"images have ([\d.]+)", str(caught.value))[1]) == pytest.approx(1 / factor, rel=0.01)
    assert "data dddddddd" in str(caught.value)


def test_scalar_statistics_leave_the_measured_mean_divided_by_the_std_in_the_latents():
    """The released trainers divide by one std and subtract no mean: latents of mean .8 keep a mean, which is checked."""
    autoencoder = Folding(offset=0.8)
    found = batches(autoencoder, pictures(64))
    one = measured(found, "scalar")
    left = one.mean / one.std
    kept = replace(one, mean=torch.zeros(1), residual=left)
    assert abs(left.item()) > 0.5
    check = check_latents(found, kept, autoencoder)
    assert check.mean == pytest.approx(tuple(left.tolist()), abs=1e-4)
    with pytest.raises(DataError, match=rf"should have mean {left.item() + 0.5:.3g}, but those of 64 images have"):
        check_latents(found, replace(kept, residual=left + 0.5), autoencoder)
    check_latents(found, replace(kept, residual=None), autoencoder)      # published statistics, unknown mean
    with pytest.raises(DataError, match="should have std 1"):
        check_latents(found, replace(kept, residual=None, std=2 * kept.std), autoencoder)


def test_latents_divided_by_a_bound_may_stay_as_they_are():
    autoencoder = Folding()
    found = batches(autoencoder, pictures(64))
    as_they_are = LatentStats("scalar", torch.zeros(1), torch.ones(1), count=0, data="divided by eta")
    with pytest.raises(DataError, match="should have std 1"):
        check_latents(found, as_they_are, autoencoder)
    autoencoder.scaled_by_bound = True
    assert check_latents(found, as_they_are, autoencoder).std[0] < 0.8
    with pytest.raises(DataError, match="should have std 1"):
        check_latents(found, replace(as_they_are, std=torch.full((1,), 2.0)), autoencoder)


def test_the_error_names_published_statistics_that_do_not_fit():
    found = batches(Folding(), pictures(64))
    published = LatentStats("scalar", torch.zeros(1), torch.tensor([1 / 0.18215]), count=0, data="published as scaling_factor")
    with pytest.raises(DataError, match=r"Their statistics \(scalar, published as scaling_factor\) belong to other latents"):
        check_latents(found, published, Folding())


def test_a_wrong_mean_is_stopped_and_the_channel_named():
    autoencoder = Folding()
    found = batches(autoencoder, pictures(64))
    stats = measured(found, "channel")
    shifted = stats.mean.clone()
    shifted[7] += 1.2 * stats.std[7]
    with pytest.raises(DataError, match=r"should have mean 0, but .* have -1\.2 in channel 7"):
        check_latents(found, replace(stats, mean=shifted), autoencoder)


def test_a_mean_shared_by_all_channels_is_right_for_scalar_statistics_only():
    """Channels with different means and total mean 0 pass for scalar statistics and fail per channel."""
    autoencoder = Folding()
    found = batches(autoencoder, pictures(64))
    tilt = torch.linspace(-2, 2, 12).view(1, 12, 1, 1)
    found = [replace(batch, mean=batch.mean + tilt, images=None) for batch in found]
    check_latents(found, measured(found, "scalar"), autoencoder)
    one = measured(found, "scalar")
    per_channel = replace(one, kind="channel", mean=one.mean.expand(12), std=one.std.expand(12), residual=torch.zeros(12))
    with pytest.raises(DataError, match="in channel"):
        check_latents(found, per_channel, autoencoder)


def test_latents_of_another_autoencoder_are_stopped():
    found = batches(Folding(), pictures(64))
    with pytest.raises(DataError, match="are not those of their images"):
        check_latents(found, measured(found, "scalar"), Folding(offset=0.2))


def test_latents_joined_with_the_wrong_images_or_flipped_themselves_are_stopped():
    autoencoder = Folding()
    found = batches(autoencoder, pictures(64))
    stats = measured(found, "scalar")
    rolled = [replace(batch, images=batch.images.roll(1, 0)) for batch in found]
    with pytest.raises(DataError, match="are not those of their images"):
        check_latents(rolled, stats, autoencoder)
    mirrored = [replace(batch, images=batch.images.flip(-1)) for batch in found]
    with pytest.raises(DataError, match="are not those of their images"):
        check_latents(mirrored, stats, autoencoder)
    lost = [replace(batch, images=None) for batch in rolled]
    assert check_latents(lost, stats, autoencoder).psnr is None


def test_bf16_latents_of_a_perfect_autoencoder_pass():
    autoencoder = Folding()
    found = batches(autoencoder, pictures(64))
    rough = [replace(batch, mean=batch.mean.bfloat16().float()) for batch in found]
    check = check_latents(rough, measured(found, "channel"), autoencoder)
    assert check.psnr == check.direct_psnr == CEILING_DB


def test_gray_images_which_a_transform_keeps_exactly_do_not_raise_the_psnr_that_others_need():
    """Without colour, dct:4x16 loses nothing: over 90 dB directly, but 65 dB from latents in bf16."""
    images = pictures(64)
    images[:3] = images[:3, :1]
    dct = open_tokenizer("dct:4x16")
    found = [replace(batch, mean=batch.mean.bfloat16().float()) for batch in batches(dct, images)]
    check = check_latents(found, dct.stats, dct)
    assert check.direct_psnr - 0.1 < check.psnr < check.direct_psnr < CEILING_DB


def test_statistics_that_lose_all_precision_of_the_latents_are_stopped():
    """A mean of 1e6 leaves no digits of the latents in float32."""
    autoencoder = Folding()
    found = batches(autoencoder, pictures(64))
    stats = measured(found, "scalar")

    class Drowning(LatentStats):
        def denormalize(self, latents):
            return super().denormalize(latents + 1e6) - 1e6 * self.std

    with pytest.raises(DataError, match="Normalizing and denormalizing latents changes their decodings"):
        check_latents(found, Drowning(**vars(stats)), autoencoder)


def test_one_latent_is_too_few():
    autoencoder = Folding()
    found = batches(autoencoder, pictures(1), sizes=(1,))
    with pytest.raises(ValueError, match="at least 2 images"):
        check_latents(found, STATS, autoencoder)


def test_latents_of_other_images_are_found_even_with_a_constant_decoder():
    class Blank(Folding):
        def decode(self, latents):
            return torch.zeros(len(latents), 3, 16, 16)

    found = batches(Blank(), pictures(64))
    check_latents(found, measured(found, "scalar"), Blank())
    with pytest.raises(DataError, match=r"their decodings have PSNR (\S+) dB, but direct reconstructions have \1 dB"):
        check_latents([replace(batch, mean=batch.mean.flip(0)) for batch in found], measured(found, "scalar"), Blank())


def test_coarsely_rounded_latents_with_a_visible_loss_are_stopped():
    autoencoder = Folding()
    found = batches(autoencoder, pictures(64))
    stats = measured(found, "scalar")
    grid = 0.08 * 12**0.5 * stats.std    # rounding to it errs by 0.08 standard deviations
    coarse = [replace(batch, mean=(batch.mean / grid).round() * grid) for batch in found]
    with pytest.raises(DataError, match=r"not those of their images: 0\.0\d+ standard deviations away .* have PSNR 3\d\.\d dB"):
        check_latents(coarse, stats, autoencoder)
