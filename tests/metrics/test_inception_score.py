import math

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from smtool.metrics.inception_score import inception_score
from smtool.randomness import generator


def logits(count=105, classes=12, scale=3.0):
    return scale * torch.randn(count, classes, generator=generator("logits"), dtype=torch.float64)


@pytest.mark.parametrize("splits", [1, 10])
def test_it_equals_torch_fidelitys(splits):
    found = inception_score(logits(), splits=splits)
    expected = isc_features_to_metric(logits(), splits=splits, shuffle=False)
    assert found.mean == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert found.std == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=1e-12)
    whole = isc_features_to_metric(logits(), splits=1, shuffle=False)
    assert found.whole == pytest.approx(whole["inception_score_mean"], rel=1e-9)


def test_it_lies_between_one_and_the_number_of_classes():
    sure = 2000.0 * torch.eye(8).repeat(5, 1)      # far enough apart that other classes have probability 0
    assert inception_score(sure, splits=5).mean == pytest.approx(8.0)
    assert inception_score(torch.zeros(40, 8)).mean == pytest.approx(1.0)
    assert inception_score(sure[:1].repeat(40, 1)).whole == pytest.approx(1.0)


def test_too_few_or_non_finite_logits_are_refused():
    with pytest.raises(ValueError, match="10 splits need logits"):
        inception_score(logits(9))
    with pytest.raises(ValueError, match="NaN"):
        inception_score(logits() * math.nan)
