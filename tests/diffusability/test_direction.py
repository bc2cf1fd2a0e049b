import math

import numpy as np
import pytest
import scipy.stats
import torch

from smtool.diffusability.sections import direction
from smtool.networks.posterior import LatentStats
from smtool.spectrum import rmsc, uniform_limit
from smtool.spectrum.units import Units


def stats_of(channels: int, *, mean: float = 0.0, std: float = 1.0) -> LatentStats:
    return LatentStats("channel", torch.full((channels,), mean), torch.full((channels,), std), 1, "")


def images(count: int) -> Units:
    return Units("image", [str(i) for i in range(count)])


@pytest.fixture
def latents():
    smooth = torch.nn.functional.interpolate(
        torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)), size=(12, 12), mode="bicubic"
    )
    return smooth + 0.3 * torch.randn(6, 4, 12, 12, generator=torch.Generator().manual_seed(1))


def contrast(tokens: np.ndarray) -> float:
    """RMSC of one image's tokens (C, h, w), from its definition."""
    units = [tokens[:, i, j] / np.linalg.norm(tokens[:, i, j]) for i in range(tokens.shape[1]) for j in range(tokens.shape[2])]
    return math.sqrt(np.mean([np.sum((unit - np.mean(units, 0)) ** 2) for unit in units]))


def test_rmsc_is_that_of_the_normalized_latents_with_students_interval_over_images(latents):
    found = direction.measure(latents, stats_of(4, mean=0.5, std=2.0), images(6)).rmsc
    values = [contrast((image - 0.5) / 2) for image in latents.numpy()]
    assert found.value == pytest.approx(np.mean(values), rel=1e-5)
    low, high = scipy.stats.t.interval(0.95, 5, np.mean(values), scipy.stats.sem(values))
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-4)
    assert found.value != pytest.approx(np.mean([contrast(image) for image in latents.numpy()]), rel=1e-3)


def test_crops_of_one_photograph_are_one_unit_of_the_interval(latents):
    found = direction.measure(latents, stats_of(4), Units("photograph", ["a", "a", "b", "b", "c", "c"]))
    values = rmsc(latents).double().view(3, 2).mean(1).numpy()
    assert found.rmsc.half_width == pytest.approx(4.302653 * values.std(ddof=1) / math.sqrt(3), rel=1e-4)


def test_the_energy_of_the_bands_sums_to_the_squared_rmsc(latents):
    found = direction.measure(latents, stats_of(4), images(6))
    assert found.bands == len(found.energy) == 8
    assert sum(found.energy) == pytest.approx(rmsc(latents).square().mean().item(), rel=1e-4)
    assert found.energy[0] > found.energy[-1]      # smooth fields


def test_directions_that_alternate_at_one_frequency_have_their_energy_in_its_band():
    """Tokens rotate by +-45 degrees with the sign of a DCT function, so that odd harmonics have energy too."""
    wave = torch.cos(math.pi * 6 * (torch.arange(8) + 0.5) / 8).sign()
    tokens = torch.stack([torch.ones(8, 8), wave.expand(8, 8)])[None]
    energy = direction.measure(tokens, stats_of(2), images(1)).energy
    expected = np.zeros(8)
    for k in range(1, 8):
        basis = math.sqrt(2 / 8) * np.cos(math.pi * k * (np.arange(8) + 0.5) / 8)
        expected[k] = (wave.numpy() / math.sqrt(2) @ basis) ** 2 / 8
    np.testing.assert_allclose(energy, expected, atol=1e-6)
    assert expected[6] > 0.3


def test_both_filters_raise_the_contrast_of_directions_and_spatial_normalization_is_irepas(latents):
    offset = latents + 3
    found = direction.measure(offset, stats_of(4), images(6))
    plain, after = found.rmsc.value, found.after
    assert plain < after.spatial_normalize.rmsc.value
    assert plain < after.dog.rmsc.value
    mean, std = offset.mean((2, 3), keepdim=True), offset.std((2, 3), keepdim=True)
    expected = np.mean([contrast(image) for image in ((offset - 0.6 * mean) / std).numpy()])
    assert after.spatial_normalize.rmsc.value == pytest.approx(expected, rel=1e-4)
    assert (after.gamma, after.dog_sigmas, after.dog_alpha) == (0.6, (0.5, 4.0), 1.0)


def test_a_grid_too_small_for_lds_and_cds_gives_a_reason_and_still_has_its_rmsc(latents):
    found = direction.measure(latents[..., :3, :3], stats_of(4), images(6))
    assert "6 tokens apart" in found.lds.reason
    assert "8 tokens apart" in found.after.dog.cds.reason
    assert 0 < found.rmsc.value < 1


def test_both_readings_of_lds_have_their_own_name_and_reason(latents):
    found = direction.measure(latents, stats_of(4), images(6))
    assert found.lds.value != pytest.approx(found.lds_paper.value, rel=1e-2)
    small = direction.measure(latents[..., :3, :3], stats_of(4), images(6))
    assert "6 tokens apart" in small.lds.reason      # never the other one in its place
    assert small.lds_paper.value > 0
    columns = direction.table({"a": small})
    assert columns.columns[3:5] == ("LDS (d >= 6)", "LDS (r = H/2)")
    assert (columns.rows[0][3], columns.rows[0][4]) == ("-", f"{small.lds_paper.value:.3f} ± {small.lds_paper.half_width:.3f}")


def test_uniformity_is_of_tokens_of_different_photographs(latents):
    """By loops over the normalized tokens; crops of one photograph are not compared."""
    few, owners = latents[:4, :, :3, :2], ["a", "b", "a", "c"]
    tokens = ((few - 0.5) / 2).flatten(2).transpose(1, 2).double().numpy()
    unit = tokens / np.linalg.norm(tokens, axis=2, keepdims=True)
    kernel = [
        np.exp(-2 * ((u - v) ** 2).sum())
        for i in range(4) for j in range(4) if owners[i] != owners[j] for u in unit[i] for v in unit[j]
    ]
    found = direction.measure(few, stats_of(4, mean=0.5, std=2.0), Units("photograph", owners))
    assert found.uniformity.value == pytest.approx(math.log(np.mean(kernel)), abs=1e-5)
    assert found.uniform_directions == pytest.approx(uniform_limit(4)) != found.uniformity.value
    assert f"{uniform_limit(4):.2f} (a)" in direction.table({"a": found}).note
    assert "different images" in direction.measure(few, stats_of(4), Units("photograph", ["a"] * 4)).uniformity.reason


def test_one_unit_has_no_interval(latents):
    assert direction.measure(latents, stats_of(4), Units("photograph", ["a"] * 6)).lds.half_width is None
