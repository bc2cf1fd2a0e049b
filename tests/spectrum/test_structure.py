import math

import numpy as np
import pytest
import torch

from smtool.spectrum import SPATIAL_MEASURES, SPATIAL_TITLES, cosine_distance_slope, local_distant_similarity
from smtool.spectrum.structure import cosine_by_distance, local_distant_similarity_paper


def _by_loops(x: np.ndarray) -> dict[int, float]:
    """Mean cosine at each distance in one feature map (C, h, w), by loops over all pairs."""
    values: dict[int, list[float]] = {}
    _, height, width = x.shape
    for i in range(height):
        for j in range(width):
            for k in range(height):
                for m in range(width):
                    a, b = x[:, i, j], x[:, k, m]
                    values.setdefault(abs(i - k) + abs(j - m), []).append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return {distance: float(np.mean(found)) for distance, found in values.items()}


@pytest.mark.parametrize("shape", [(3, 5, 5), (4, 4, 6)])
def test_cosines_equal_a_loop_over_all_pairs(rng, shape):
    x = rng.standard_normal((2, *shape))
    cosine, count = cosine_by_distance(torch.from_numpy(x))
    assert count.sum() == (shape[1] * shape[2]) ** 2
    for index in range(2):
        expected = _by_loops(x[index])
        np.testing.assert_allclose(cosine[index].numpy(), [expected[d] for d in range(len(expected))], atol=1e-12)


def test_both_measures_equal_their_definition(rng):
    x = rng.standard_normal((3, 6, 5))
    cosine = _by_loops(x)
    pairs = {d: sum(1 for i in range(30) for j in range(30) if abs(i // 5 - j // 5) + abs(i % 5 - j % 5) == d) for d in cosine}
    far = sum(cosine[d] * pairs[d] for d in cosine if d >= 6) / sum(pairs[d] for d in cosine if d >= 6)
    features = torch.from_numpy(x)[None]
    assert local_distant_similarity(features).item() == pytest.approx(cosine[1] - far)
    slope = np.polyfit(range(1, 9), [cosine[d] for d in range(1, 9)], 1)[0]
    assert cosine_distance_slope(features).item() == pytest.approx(-slope)


def _mean_cosine(x: np.ndarray, wanted) -> float:
    """Mean cosine in one feature map (C, h, w) of all ordered pairs whose distance d has wanted(d), by a double loop."""
    tokens = [(i, j, x[:, i, j] / np.linalg.norm(x[:, i, j])) for i in range(x.shape[1]) for j in range(x.shape[2])]
    return float(np.mean([a @ b for i, j, a in tokens for k, m, b in tokens if wanted(abs(i - k) + abs(j - m))]))


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (5, 5), (8, 8), (4, 7)])
def test_the_papers_lds_equals_a_double_loop(rng, shape):
    x = rng.standard_normal((2, 3, *shape))
    half = min(shape) / 2
    expected = [_mean_cosine(one, lambda d: 0 < d < half) - _mean_cosine(one, lambda d: d >= half) for one in x]
    np.testing.assert_allclose(local_distant_similarity_paper(torch.from_numpy(x)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (8, 8), (3, 7)])
def test_the_codes_lds_equals_a_double_loop(rng, shape):
    x = rng.standard_normal((2, 3, *shape))
    expected = [_mean_cosine(one, lambda d: d == 1) - _mean_cosine(one, lambda d: d >= 6) for one in x]
    np.testing.assert_allclose(local_distant_similarity(torch.from_numpy(x)).numpy(), expected, atol=1e-12)


def test_the_two_definitions_of_lds_have_names_of_their_own():
    assert len(set(SPATIAL_TITLES.values())) == len(SPATIAL_MEASURES)
    assert list(SPATIAL_TITLES) == list(SPATIAL_MEASURES)
    assert SPATIAL_TITLES["lds"] != SPATIAL_TITLES["lds_paper"] != "LDS"
    assert SPATIAL_MEASURES["lds"] is local_distant_similarity
    assert SPATIAL_MEASURES["lds_paper"] is local_distant_similarity_paper


def test_equal_tokens_have_no_structure_and_a_turning_direction_has():
    flat = torch.ones(1, 2, 8, 8)
    assert local_distant_similarity(flat).abs().item() < 1e-6
    assert local_distant_similarity_paper(flat).abs().item() < 1e-6
    assert cosine_distance_slope(flat).abs().item() < 1e-6
    angle = torch.arange(8)[:, None] + torch.arange(8.0) * math.pi / 20
    turning = torch.stack([angle.cos(), angle.sin()])[None]
    smooth = torch.stack([(0.1 * angle).cos(), (0.1 * angle).sin()])[None]
    assert local_distant_similarity(smooth) > 0
    assert cosine_distance_slope(smooth) > 0
    assert local_distant_similarity(turning).item() != pytest.approx(local_distant_similarity(smooth).item())


def test_length_of_tokens_does_not_matter(rng):
    x = torch.from_numpy(rng.standard_normal((1, 3, 6, 6)))
    scale = torch.from_numpy(rng.uniform(0.1, 10, (1, 1, 6, 6)))
    torch.testing.assert_close(local_distant_similarity(scale * x), local_distant_similarity(x))


@pytest.mark.parametrize(
    ("measure", "side"), [(local_distant_similarity, 3), (cosine_distance_slope, 4), (local_distant_similarity_paper, 2)]
)
def test_a_grid_without_far_pairs_is_refused(measure, side):
    with pytest.raises(ValueError, match=f"a grid of {side}x{side} has none"):
        measure(torch.ones(1, 2, side, side))
