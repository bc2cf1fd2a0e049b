import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from smtool.metrics.kernel import kernel_distance, kernel_distance_of_subsets, paired_kernel_distance
from smtool.randomness import generator


def features(count, dim=12, shift=0.0, key="x"):
    return torch.randn(count, dim, generator=generator(key), dtype=torch.float64) * 2 + shift


def double_loop(x, y):
    def kernel(a, b):
        return (sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_it_equals_a_double_loop_for_sets_of_different_size():
    x, y = features(9), features(14, shift=0.5, key="y")
    assert kernel_distance(x, y).value == pytest.approx(double_loop(x.tolist(), y.tolist()), rel=1e-9)


def test_it_equals_torch_fidelity_and_clean_fid_on_whole_sets():
    from cleanfid.fid import kernel_distance as clean_fid

    x, y = features(60), features(60, shift=0.3, key="y")
    options = {"kid_subsets": 1, "kid_subset_size": 60, "rng_seed": 0, "verbose": False}
    expected = kid_features_to_metric(x, y, **options)["kernel_inception_distance_mean"]
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-6)
    assert kernel_distance(x, y).value == pytest.approx(clean_fid(x.numpy(), y.numpy(), num_subsets=1), rel=1e-6)


def test_subsets_equal_torch_fidelitys_when_they_are_the_same_subsets(monkeypatch):
    x, y = features(50), features(70, shift=0.3, key="y")
    drawn = np.random.RandomState(7)
    monkeypatch.setattr(
        "smtool.metrics.kernel._subset", lambda v, size, draws: v[drawn.choice(len(v), size, replace=False)]
    )
    options = {"kid_subsets": 6, "kid_subset_size": 20, "rng_seed": 7, "verbose": False}
    expected = kid_features_to_metric(x, y, **options)["kernel_inception_distance_mean"]
    found = kernel_distance_of_subsets(x, y, draws=generator(0), subsets=6, subset_size=20)
    assert found == pytest.approx(expected, rel=1e-6)


def test_subsets_are_drawn_without_repetition_and_agree_with_the_whole_on_average():
    x, y = features(40), features(40, shift=0.5, key="y")
    whole = kernel_distance(x, y).value
    assert kernel_distance_of_subsets(x, y, draws=generator(0), subset_size=1000) == whole
    found = kernel_distance_of_subsets(x, y, draws=generator(0), subsets=400, subset_size=20)
    assert found == pytest.approx(whole, rel=0.05)      # a vector drawn twice would add its square, ten times as much
    assert found == kernel_distance_of_subsets(x, y, draws=generator(0), subsets=400, subset_size=20)


def test_it_is_unbiased_at_small_sizes():
    values = [kernel_distance(features(6, key=f"x{i}"), features(6, key=f"y{i}")).value for i in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_the_error_is_that_of_leaving_each_sample_out():
    x, y = features(11), features(8, shift=0.4, key="y")
    without = np.array([double_loop([*x.tolist()[:i], *x.tolist()[i + 1 :]], y.tolist()) for i in range(11)])
    expected = math.sqrt(10 / 11 * ((without - without.mean()) ** 2).sum())
    assert kernel_distance(x, y).error == pytest.approx(expected, rel=1e-8)
    assert kernel_distance(x[:2], y).error == math.inf


def test_the_error_equals_the_scatter_over_other_samples():
    y = features(300, key="reference")
    found = [kernel_distance(features(80, shift=0.3, key=f"draw{i}"), y) for i in range(60)]
    scatter = np.std([distance.value for distance in found], ddof=1)
    assert np.mean([distance.error for distance in found]) == pytest.approx(scatter, rel=0.4)      # 60 draws: 4 x 9 %


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="12 and of 5 dimensions"):
        kernel_distance(features(4), features(4, dim=5))
    with pytest.raises(ValueError, match="at least 2 feature vectors of each, found 1 and 4"):
        kernel_distance(features(1), features(4))
    with pytest.raises(ValueError, match="NaN"):
        kernel_distance(features(4) * math.nan, features(4))


def paired_double_loop(x, y, units):
    """Over pairs of units, the mean over pairs of vectors of k(x, x') + k(y, y') - k(x, y') - k(y, x')."""
    def kernel(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    members = [np.flatnonzero(np.array(units) == unit) for unit in sorted(set(units))]
    means = [
        np.mean([kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(y[i], x[j]) for i in u for j in v])
        for u in members for v in members if u is not v
    ]
    return np.mean(means)


def test_the_distance_of_pairs_leaves_out_every_pair_within_a_unit():
    x, units = features(11).numpy(), [0, 0, 1, 2, 5, 5, 5, 3, 7, 1, 7]
    y = x + 0.4 * features(11, key="y").numpy()
    found = paired_kernel_distance(torch.from_numpy(x), torch.from_numpy(y), torch.tensor(units))
    assert found.value == pytest.approx(paired_double_loop(x, y, units), rel=1e-9)
    names = sorted(set(units))
    kept = [[i for i, unit in enumerate(units) if unit != left] for left in names]
    without = np.array([paired_double_loop(x[k], y[k], [units[i] for i in k]) for k in kept])
    expected = math.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum())
    assert found.error == pytest.approx(expected, rel=1e-8)


def test_a_perfect_copy_has_distance_zero_where_the_distance_of_independent_sets_is_negative():
    x = features(20)
    assert paired_kernel_distance(x, x.clone(), torch.arange(20)).value == pytest.approx(0, abs=1e-12)
    assert kernel_distance(x, x.clone()).value < -1


def test_the_distance_of_pairs_is_unbiased_for_crops_of_few_photographs():
    """Four photographs of three crops; y[i] belongs to x[i], and both sets have the same distribution."""
    values = []
    for i in range(400):
        photograph = features(4, key=f"photograph{i}").repeat_interleave(3, 0)
        x, y = (photograph + features(12, key=f"{side}{i}") for side in "xy")
        values.append(paired_kernel_distance(x, y, torch.arange(4).repeat_interleave(3)).value)
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_pairs_need_two_units_and_their_error_three():
    x = features(4)
    assert paired_kernel_distance(x, x, torch.tensor([0, 0, 1, 1])).error == math.inf
    with pytest.raises(ValueError, match="at least 2 units"):
        paired_kernel_distance(x, x, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 2 units are needed, found 4 and 3"):
        paired_kernel_distance(x, x[:3], torch.arange(4))
