"""Statistics of every element of a latent: a double loop, their file, what they do not fit, and whole runs."""

import json

import numpy as np
import pytest
import torch

from smtool.data import LatentBatch, check_latents
from smtool.data.latents.elements import EPS, ElementMoments
from smtool.errors import DataError
from smtool.inference.diffusion_model import read_diffusion
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import Tokenizer, point_posterior
from smtool.storage import read_metadata


def latents(count: int = 40, shape=(2, 3, 4), seed: int = 0) -> torch.Tensor:
    """Every element has a mean and std of its own."""
    draw = torch.Generator().manual_seed(seed)
    mean, std = torch.randn(shape, generator=torch.Generator().manual_seed(7)), torch.rand(
        shape, generator=torch.Generator().manual_seed(8)) + 0.2
    return mean + std * torch.randn(count, *shape, generator=draw)


def test_statistics_are_those_of_a_double_loop_however_the_batches_are_cut():
    z = latents()
    parts = [ElementMoments.of(part) for part in z.split((1, 7, 32))]
    merged = (parts[0] + parts[1]) + parts[2]
    stats, whole = merged.stats("d" * 64), ElementMoments.of(z).stats("d" * 64)
    values = z.double().numpy()
    for index in np.ndindex(*z.shape[1:]):
        column = [float(values[(n, *index)]) for n in range(len(values))]
        mean = sum(column) / len(column)
        variance = sum((x - mean) ** 2 for x in column) / len(column)
        assert stats.mean[index].item() == pytest.approx(mean, abs=1e-6)
        assert stats.std[index].item() == pytest.approx((variance + 1e-5) ** 0.5, rel=1e-6)
    torch.testing.assert_close(whole.mean, stats.mean)
    torch.testing.assert_close(whole.std, stats.std)
    assert stats.count == 40 and EPS == 1e-5


def test_normalized_elements_have_mean_0_and_variance_1_and_the_way_back_is_exact():
    z = latents().double()
    stats = ElementMoments.of(z).stats("")
    normalized = stats.normalize(z)
    torch.testing.assert_close(normalized.mean(0), torch.zeros(2, 3, 4).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(normalized.var(0, correction=0), torch.ones(2, 3, 4).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(stats.denormalize(normalized), z, atol=1e-12, rtol=0)


def test_an_element_without_variance_is_divided_by_the_root_of_eps():
    stats = ElementMoments.of(torch.ones(5, 1, 1, 2)).stats("")
    assert stats.std.flatten().tolist() == pytest.approx([1e-5**0.5] * 2)
    assert stats.normalize(torch.ones(1, 1, 1, 2)).abs().max() == 0


def test_metadata_gives_the_same_bits_back_and_is_json():
    stats = ElementMoments.of(latents()).stats("e" * 64)
    again = LatentStats.from_metadata(json.loads(json.dumps(stats.to_metadata())))
    assert torch.equal(again.mean, stats.mean) and torch.equal(again.std, stats.std)
    assert (again.kind, again.count, again.data) == ("element", 40, "e" * 64)
    assert again.fits((2, 3, 4)) and not again.fits((2, 4, 3))


@pytest.mark.parametrize("change", [
    {"mean": {"shape": [2, 3, 4], "float32": "AAAA"}}, {"mean": {"shape": [24], "float32": "!"}}, {"mean": [0.0, 1.0]},
    {"residual": [0.0] * 24},
])  # fmt: skip
def test_damaged_metadata_is_refused(change):
    whole = ElementMoments.of(latents()).stats("").to_metadata()
    with pytest.raises((ValueError, TypeError, KeyError)):
        LatentStats.from_metadata({**whole, **change})


def test_channel_statistics_of_all_elements_are_those_of_all_values():
    z = latents(200).double()
    found = ElementMoments.of(z).stats("").per_channel()
    torch.testing.assert_close(found.mean.double(), z.mean((0, 2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.std.double(), z.transpose(0, 1).flatten(1).std(1, correction=0), atol=1e-4, rtol=0)
    assert found.kind == "channel"


def test_latents_of_another_size_and_values_that_are_not_finite_are_refused():
    stats = ElementMoments.of(latents()).stats("")
    with pytest.raises(ValueError, match="statistics of the elements of latents 2x3x4, which do not fit latents 2x6x8"):
        stats.normalize(torch.zeros(1, 2, 6, 8))
    with pytest.raises(ValueError, match="NaN or infinity"):
        ElementMoments.of(torch.full((1, 1, 1, 1), torch.nan))


class Plain(Tokenizer):
    """Latents are the images."""

    downsample, latent_channels, label = 1, 2, "plain"

    def encode(self, images):
        return point_posterior(images)

    def decode(self, latents):
        return latents


def test_the_check_before_training_accepts_them_and_finds_statistics_of_other_places():
    z = latents(64)
    stats = ElementMoments.of(latents(500, seed=1)).stats("d" * 64)
    batch = LatentBatch(z, torch.full_like(z, -torch.inf), None, tuple(map(str, range(64))), images=None)
    found = check_latents([batch], stats, Plain())
    assert len(found.mean) == 2 and found.round_trip_db > 60
    moved = LatentStats("element", stats.mean.flip(2), stats.std.flip(2), 500, "d" * 64, torch.zeros(2))
    with pytest.raises(DataError, match="Normalized latents should have"):
        check_latents([batch], moved, Plain())


@pytest.mark.slow
@pytest.mark.parametrize("online", [True, False])
def test_a_transformer_keeps_them_in_its_checkpoint_and_samples_with_them(studio, tmp_path, command, online):
    run = studio.train(tmp_path / "run", "latents.stats=element", f"latents.online={str(online).lower()}", "latents.dtype=fp32")
    stored = read_metadata(run / "ckpt.safetensors")["stats"]
    model = read_diffusion(run / "ckpt.safetensors")
    assert stored["kind"] == "element" and tuple(model.stats.mean.shape) == model.latent_shape
    assert model.stats.count == 84      # 42 images, and mirrored
    code, _, said = command("sample", str(run), "--num-images", "2", "--out", str(tmp_path / "samples"))
    assert code == 0, said
    code, said, _ = command("inspect", str(run))
    assert code == 0 and "element, of 84 latents" in said
