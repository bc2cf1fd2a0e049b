import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smtool.data.images.builtin import PHOTOGRAPHS, DeadLeaves, PowerLawField, distinct_photographs, parse_builtin
from smtool.data.images.transform import Rule, to_size
from smtool.errors import DataError
from smtool.spectrum import PHYSICAL, spectrum_of
from smtool.spectrum.powerlaw import fit_power_law


@pytest.mark.parametrize("size", [16, 64, 192])
def test_training_and_validation_crops_never_share_a_pixel_and_lie_inside_their_photograph(size):
    entries = parse_builtin("builtin:photos?train=300&val=300").entries(size)
    folder = Path(importlib.util.find_spec("skimage").submodule_search_locations[0]) / "data"
    seen = {}
    for file in PHOTOGRAPHS.values():
        with Image.open(folder / file) as image:
            seen[file] = {split: np.zeros((image.height, image.width), bool) for split in ("train", "val")}
    for entry in entries:
        place, mask = entry.place, seen[entry.place.file][entry.split]
        assert place.side >= size    # never upscaled
        assert place.left >= 0 and place.left + place.side <= mask.shape[1]
        assert place.top >= 0 and place.top + place.side <= mask.shape[0]
        mask[place.top : place.top + place.side, place.left : place.left + place.side] = True
    for masks in seen.values():
        assert masks["train"].any() and masks["val"].any()
        assert not (masks["train"] & masks["val"]).any()


def test_every_photograph_gives_as_many_crops_and_no_two_entries_share_an_id():
    entries = parse_builtin("builtin:photos?train=120&val=24").entries(32)
    assert len({entry.id for entry in entries}) == 144
    assert set(Counter(entry.group for entry in entries).values()) == {12}


def test_photographs_too_small_for_the_size_are_left_out_and_no_size_is_silently_upscaled():
    assert len(distinct_photographs(32)) == 12
    assert set(PHOTOGRAPHS) - set(distinct_photographs(256)) == {"chelsea", "coins"}
    with pytest.raises(DataError, match="no photograph for 1000-pixel crops"):
        parse_builtin("builtin:photos").entries(1000)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_power_law_fields_have_the_exponent_of_their_name(exponent):
    fields = [np.asarray(PowerLawField(str(number), 32, exponent).image()) for number in range(96)]
    images = torch.from_numpy(np.stack(fields)).permute(0, 3, 1, 2).double() / 127.5 - 1
    fit = fit_power_law(spectrum_of(images, PHYSICAL), highest=0.35)
    assert abs(fit.exponent - exponent) < max(0.05, 1.5 * fit.half_width)
    assert 0.2 < images.std() < 0.36    # 36 gray levels on the canvas; a crop of a steep field varies less
    assert (images.abs() == 1).double().mean() < 0.01    # almost no clipped pixels


def test_channels_of_a_power_law_field_are_correlated_at_four_fifths():
    pixels = np.concatenate([np.asarray(PowerLawField(str(n), 32, 1.0).image()).reshape(-1, 3) for n in range(40)])
    correlations = np.corrcoef(pixels.T)[np.triu_indices(3, 1)]
    np.testing.assert_allclose(correlations, 0.8, atol=0.05)


def test_dead_leaves_have_the_covariance_of_the_model():
    """Two points are equal if one disc is topmost at both: probability gamma(d) / (2 gamma(0) - gamma(d)) (Lee et al. 2001)."""
    side, lags = 64, (2, 4, 8)
    radii = np.linspace(2, side / 2, 200_001)
    density = radii**-3 / np.trapezoid(radii**-3, radii)

    def gamma(distance):
        """Expected overlap of a disc with itself shifted by `distance`."""
        half = np.clip(distance / (2 * radii), 0, 1)
        lens = 2 * radii**2 * (np.arccos(half) - half * np.sqrt(1 - half**2))
        return np.trapezoid(lens * density, radii)

    images = np.stack([np.asarray(DeadLeaves(str(number), side // 2).image()) for number in range(150)]).astype(int)
    for lag in lags:
        expected = gamma(lag) / (2 * gamma(0) - gamma(lag))
        across = (images[:, :, lag:] == images[:, :, :-lag]).all(-1).mean()
        down = (images[:, lag:] == images[:, :-lag]).all(-1).mean()
        assert (across + down) / 2 == pytest.approx(expected, abs=0.02)


def test_dead_leaves_fall_about_as_the_square_of_frequency():
    squares = [np.asarray(to_size(DeadLeaves(str(n), 32).image(), Rule(32), "")) for n in range(100)]
    images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).double() / 127.5 - 1
    assert abs(fit_power_law(spectrum_of(images, PHYSICAL), highest=0.35).exponent - 2) < 0.15


def test_a_synthetic_image_is_determined_by_its_name():
    for kind in (lambda key: DeadLeaves(key, 16), lambda key: PowerLawField(key, 16, 2.0)):
        assert np.array_equal(kind("train/1").image(), kind("train/1").image())
        assert not np.array_equal(kind("train/1").image(), kind("val/1").image())
