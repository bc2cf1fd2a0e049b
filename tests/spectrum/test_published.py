"""The published curves, and the relation among them that confirms the released procedure."""

import pytest
import torch

from smtool.spectrum import REFERENCE, published_curves, spectral_distribution

# Sum of the log1p bins before normalization; not published, but fitted, with the same value for all deltas
# (released-code.md#published-curves).
TOTALS = {"celeba": 7.4, "imagenet": 8.6}


def deviation_of_target(data: str, delta: str) -> float:
    """Total absolute difference between the published target and the target computed from the published RGB curve p.

    p times the total is log1p of the ring powers, so the ring powers are expm1(total p). They are multiplied by
    (bin number)^delta, compressed by log1p and normalized.
    """
    curves = published_curves()
    power = torch.tensor(curves[f"{data}/rgb"].values, dtype=torch.float64).mul(TOTALS[data]).expm1()[None]
    found = spectral_distribution(power, REFERENCE.curve, delta=float(delta))[0]
    return (found - torch.tensor(curves[f"{data}/rgb-delta{delta}"].values)).abs().sum().item()


@pytest.mark.parametrize(("data", "delta", "limit"), [
    ("celeba", "0.6", 0.02), ("celeba", "1", 0.02), ("celeba", "1.2", 0.02), ("imagenet", "0.8", 0.03), ("imagenet", "1", 0.03),
])
def test_the_printed_targets_follow_from_the_printed_image_curve(data, delta, limit):
    assert deviation_of_target(data, delta) < limit


def test_without_the_logarithm_the_first_bin_of_the_target_would_be_a_quarter_too_low():
    curves = published_curves()
    weighted = torch.tensor(curves["celeba/rgb"].values) * torch.arange(1, 17)
    assert (weighted[0] / weighted.sum()).item() == pytest.approx(0.1446, abs=1e-4)
    assert curves["celeba/rgb-delta1"].values[0] == 0.1961


def test_every_curve_has_sixteen_fractions_that_sum_to_one():
    curves = published_curves()
    assert len(curves) == 15
    for name, curve in curves.items():
        assert curve.name == name
        assert len(curve.values) == 16
        assert sum(curve.values) == pytest.approx(1, abs=3e-4)      # four published decimals
        assert "published" in curve.label


@pytest.mark.parametrize(("name", "slope"), [
    ("celeba/rgb", -2.12), ("celeba/rgb-delta1", -1.00), ("celeba/sd-vae", -0.53), ("celeba/scale-equivariance", -1.09),
    ("celeba/dsm", -1.02), ("celeba/esm", -0.96), ("imagenet/rgb", -1.68), ("imagenet/dinov2", -0.86), ("imagenet/va-vae", -1.11),
])
def test_the_curves_have_the_documented_log_log_slopes(name, slope):
    """Slopes over bins 2 to 16 (released-code.md#published-curves)."""
    x = torch.arange(2, 17, dtype=torch.float64).log()
    y = torch.tensor(published_curves()[name].values[1:], dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    assert (x * y).sum() / x.square().sum() == pytest.approx(slope, abs=0.006)
