import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from smtool.metrics.frechet import FeatureStats, frechet_distance, frechet_distance_of_features


def features(rng, count, dim, scale=1.0):
    """Correlated features with a mean."""
    mixing = rng.standard_normal((dim, dim)) / dim**0.5
    return scale * rng.standard_normal((count, dim)) @ mixing + rng.standard_normal(dim)


def by_square_root(x, y):
    """The textbook formula with scipy's matrix square root, as clean-fid and pytorch-fid compute it."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = x.mean(0) - y.mean(0)
    return shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b).real)


@pytest.mark.parametrize(("dim", "counts"), [(3, (40, 50)), (48, (200, 300)), (128, (500, 400))])
def test_frechet_distance_equals_scipys_square_root_and_torch_fidelity(rng, dim, counts):
    x, y = features(rng, counts[0], dim), features(rng, counts[1], dim, scale=1.3)
    found = frechet_distance(FeatureStats.of(torch.from_numpy(x)), FeatureStats.of(torch.from_numpy(y)))
    stats = [fid_features_to_statistics(torch.from_numpy(values)) for values in (x, y)]
    other = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert found == pytest.approx(by_square_root(x, y), rel=1e-6)
    assert found == pytest.approx(other, rel=1e-6)


def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form():
    sigma, tau, shift = torch.tensor([[1.0, 2.0, 0.5], [2.0, 1.0, 0.5], [0.3, 0.0, -1.0]], dtype=torch.float64)
    a = FeatureStats(11, torch.zeros_like(shift), 10 * torch.diag(sigma**2))
    b = FeatureStats(21, shift, 20 * torch.diag(tau**2))
    expected = shift.square().sum() + (sigma - tau).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-12)


def test_frechet_distance_of_fewer_vectors_than_dimensions_is_still_exact(rng):
    x, y = features(rng, 12, 40), features(rng, 12, 40)
    a, b = (FeatureStats.of(torch.from_numpy(values)) for values in (x, y))
    # the overlap of two sets of 12 vectors, by singular values of the 12 x 12 product of centred data
    overlap = np.linalg.svd((x - x.mean(0)) @ (y - y.mean(0)).T, compute_uv=False).sum() / 11
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum() - 2 * overlap
    assert not a.full_rank
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance_of_features(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) < 1e-12 * float(a.covariance.trace())


@pytest.mark.parametrize("counts", [(60, 50), (60, 9), (9, 9)])
def test_the_distance_of_features_is_that_of_their_moments(rng, counts):
    x, y = (torch.from_numpy(features(rng, count, 20)) for count in counts)
    expected = frechet_distance(FeatureStats.of(x), FeatureStats.of(y))
    assert frechet_distance_of_features(x, y) == pytest.approx(expected, rel=1e-9)


def test_features_that_are_always_zero_do_not_disturb_the_distance(rng):
    x, y = features(rng, 100, 8), features(rng, 100, 8)
    dead = [torch.from_numpy(np.concatenate([np.zeros((100, 3)), values], axis=1)) for values in (x, y)]
    assert frechet_distance_of_features(*dead) == pytest.approx(by_square_root(x, y), rel=1e-9)


def test_frechet_distance_is_symmetric_and_invariant_to_rotation(rng):
    x, y = features(rng, 100, 16), features(rng, 90, 16)
    turn = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    pair = [FeatureStats.of(torch.from_numpy(values)) for values in (x, y)]
    turned = [FeatureStats.of(torch.from_numpy(values @ turn)) for values in (x, y)]
    assert frechet_distance(*pair) == pytest.approx(frechet_distance(*pair[::-1]), rel=1e-10)
    assert frechet_distance(*pair) == pytest.approx(frechet_distance(*turned), rel=1e-10)


def test_moments_of_parts_add_up_to_the_moments_of_the_whole(rng):
    x = torch.from_numpy(features(rng, 57, 9) + 100.0)
    whole = FeatureStats.of(x)
    parts = FeatureStats.of(x[:1]) + FeatureStats.of(x[1:40]) + FeatureStats.of(x[40:])
    assert parts.count == 57
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(parts.scatter, whole.scatter, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(whole.covariance.numpy(), np.cov(x.numpy(), rowvar=False), rtol=1e-12)


def test_features_that_are_not_finite_are_counted_and_refused():
    x = torch.zeros(5, 3)
    x[1, 2], x[4, 0] = float("nan"), float("inf")
    with pytest.raises(ValueError, match="2 of 5 feature vectors"):
        FeatureStats.of(x)


def test_stats_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        frechet_distance(FeatureStats.of(torch.rand(5, 3)), FeatureStats.of(torch.rand(5, 4)))
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(FeatureStats.of(torch.rand(1, 3)), FeatureStats.of(torch.rand(5, 3)))
    with pytest.raises(ValueError, match=r"\(5, 3\) and \(5, 4\)"):
        frechet_distance_of_features(torch.rand(5, 3), torch.rand(5, 4))
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance_of_features(torch.rand(1, 3), torch.rand(5, 3))
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        FeatureStats.of(torch.rand(0, 3))
