import math

import numpy as np
import pytest
import torch

from smtool.spectrum import cosine_distance_slope, local_distant_similarity
from smtool.spectrum.structure import cosine_by_distance


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


def test_equal_tokens_have_no_structure_and_a_turning_direction_has():
    flat = torch.ones(1, 2, 8, 8)
    assert local_distant_similarity(flat).abs().item() < 1e-6
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


@pytest.mark.parametrize(("measure", "side"), [(local_distant_similarity, 3), (cosine_distance_slope, 4)])
def test_a_grid_without_far_pairs_is_refused(measure, side):
    with pytest.raises(ValueError, match=f"a grid of {side}x{side} has none"):
        measure(torch.ones(1, 2, side, side))
