import math
from itertools import permutations

import numpy as np
import pytest
import scipy.stats
import torch

from smtool.metrics.published import COLUMNS, GENERATION, published_autoencoders
from smtool.metrics.rank_correlation import rank_correlation, ranks, repeatability, spearman
from smtool.randomness import generator

TIED = [3.0, 1.0, 3.0, 2.0, 2.0, 3.0, 0.0]


def test_ranks_with_ties_equal_scipys():
    assert ranks(torch.tensor(TIED)).tolist() == scipy.stats.rankdata(TIED).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_spearman_equals_scipys_with_and_without_ties(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal(12), rng.integers(0, 5, 12).astype(float)
    assert spearman(torch.tensor(x), torch.tensor(y)) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


def test_few_points_are_permuted_exactly():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(6), rng.standard_normal(6)
    found = rank_correlation(torch.tensor(x), torch.tensor(y), draws=generator("test"))
    value = scipy.stats.spearmanr(x, y).statistic
    every = [scipy.stats.spearmanr(x, y[list(order)]).statistic for order in permutations(range(6))]
    assert found.chance == pytest.approx(np.mean(np.abs(every) >= abs(value) - 1e-9), abs=1e-12)
    assert found.points == 6


def test_many_points_agree_with_the_t_approximation():
    rng = np.random.default_rng(2)
    x = rng.standard_normal(40)
    y = 0.35 * x + rng.standard_normal(40)
    found = rank_correlation(torch.tensor(x), torch.tensor(y), draws=generator("test"))
    assert found.chance == pytest.approx(scipy.stats.spearmanr(x, y).pvalue, abs=0.03)
    assert found.low < found.value < found.high


def test_a_perfect_order_of_four_has_a_large_p_value():
    """Two of the 4! = 24 orders are perfect: one rising and one falling."""
    x = torch.arange(4.0)
    found = rank_correlation(x, x.square(), draws=generator("test"))
    assert (found.value, found.chance) == (pytest.approx(1), pytest.approx(2 / 24))


def test_a_few_points_have_no_interval_and_equal_values_no_correlation():
    assert math.isnan(rank_correlation(torch.arange(7.0), torch.arange(7.0), draws=generator("test")).low)
    assert not math.isnan(rank_correlation(torch.arange(8.0), torch.arange(8.0), draws=generator("test")).low)
    assert math.isnan(spearman(torch.ones(5), torch.arange(5.0)))
    with pytest.raises(ValueError, match="two lists of one length"):
        spearman(torch.ones(3), torch.ones(4))


@pytest.mark.parametrize(
    ("column", "quoted", "points"),
    [
        ("ifid_bn", 0.84, 22), ("linear_probe", -0.82, 22), ("date", -0.79, 22), ("vf_loss", 0.66, 22), ("psnr", 0.54, 22),
        ("se_loss", -0.53, 22), ("lds", 0.44, 18), ("viv", 0.41, 18), ("rfid", -0.17, 22), ("energy_above_0.05", -0.01, 22),
        ("cds", 0.01, 22), ("eq_loss", 0.00, 22),
    ],
)  # fmt: skip
def test_the_published_table_gives_the_documented_correlations(column, quoted, points):
    """Spearman's correlation with SiT-XL's FID without guidance (released-code.md#predictors)."""
    rows = [row for row in published_autoencoders().values() if not math.isnan(row[column])]
    x, y = (torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in (column, GENERATION))
    assert len(rows) == points
    assert spearman(x, y) == pytest.approx(quoted, abs=0.006)


def test_the_published_table_is_complete():
    table = published_autoencoders()
    assert len(table) == 22
    assert all(tuple(row) == COLUMNS for row in table.values())
    assert (table["SD-VAE"]["psnr"], table["RAE"]["linear_probe"]) == (26.91, 73.58)
    assert math.isnan(table["MAE-TOK"]["viv"])


def test_repeatability_is_the_mean_correlation_of_a_column_with_the_others_mean():
    rng = np.random.default_rng(3)
    table = rng.standard_normal((9, 1)) + 0.5 * rng.standard_normal((9, 4))
    expected = [scipy.stats.spearmanr(table[:, k], np.delete(table, k, axis=1).mean(1)).statistic for k in range(4)]
    assert repeatability(torch.tensor(table)) == pytest.approx(np.mean(expected), abs=1e-12)


def test_repetitions_in_the_same_order_have_correlation_1_and_a_single_one_is_refused():
    column = torch.tensor([3.0, 1.0, 2.0, 5.0])
    assert repeatability(torch.stack([column, column.exp()], dim=1)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 2 repetitions"):
        repeatability(column[:, None])
