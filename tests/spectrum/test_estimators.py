from dataclasses import replace

import pytest

from smtool.spectrum import PHYSICAL, REFERENCE


def test_the_released_recipe_is_the_default() -> None:
    for estimator in REFERENCE:
        assert (estimator.bins, estimator.downsample, estimator.log, estimator.gain) == (16, "released", "log1p", "raw")
    assert (REFERENCE.loss.keep_dc, REFERENCE.curve.keep_dc) == (False, True)


def test_labels_name_what_differs_from_the_released_recipe() -> None:
    assert [e.label for e in (REFERENCE.loss, REFERENCE.curve, PHYSICAL)] == ["REFERENCE.loss", "REFERENCE.curve", "PHYSICAL"]
    assert replace(REFERENCE.curve, downsample="antialias", bins=8).label == "REFERENCE.curve, bins=8, downsample=antialias"
    assert replace(REFERENCE.loss, log="none", gain="match").label == "REFERENCE.loss, log=none, gain=match"


def test_physical_has_no_variants_and_bins_must_be_positive() -> None:
    with pytest.raises(ValueError, match="one form only"):
        replace(PHYSICAL, log="log1p")
    with pytest.raises(ValueError, match="bins >= 1, but got 0"):
        replace(REFERENCE.loss, bins=0)
    with pytest.raises(ValueError, match="bins >= 1, but got None"):
        replace(REFERENCE.loss, bins=None)
