import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from smtool.metrics.predictors import (
    drawn_neighbours,
    equivariance_error,
    halfway,
    interpolated,
    nearest_by_cosine,
    scale_error,
)
from smtool.randomness import generator


def _latents(count, *shape, seed=0):
    return torch.randn(count, *shape, generator=generator("test", seed), dtype=torch.float64)


def test_neighbours_by_cosine_equal_a_double_loop():
    queries, others = _latents(70, 2, 3, 3), 3 * _latents(90, 2, 3, 3, seed=1)
    found = nearest_by_cosine(queries, others, 4)
    for i in range(len(queries)):
        q = queries[i].numpy().ravel()
        cosines = [float(q @ o.numpy().ravel() / np.linalg.norm(q) / np.linalg.norm(o.numpy())) for o in others]
        assert found[i].tolist() == list(np.argsort(cosines)[::-1][:4])


def test_more_neighbours_than_latents_are_refused():
    with pytest.raises(ValueError, match="10 neighbours are needed, but there are only 9"):
        nearest_by_cosine(_latents(2, 1, 2, 2), _latents(9, 1, 2, 2), 10)


def test_neighbours_are_drawn_with_the_published_probabilities():
    """softmax(-mean squared difference) over two candidates, estimated from many equal queries."""
    others = torch.tensor([[1.0, 0.2], [1.0, -1.5]]).view(2, 1, 1, 2)
    queries = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2).expand(4000, 1, 1, 2)
    drawn = drawn_neighbours(queries, others, draws=generator("test"), count=2)
    near, far = math.exp(-(0.2**2) / 2), math.exp(-(1.5**2) / 2)
    expected = near / (near + far)
    assert (drawn == 0).double().mean().item() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 4000))


def test_halfway_keeps_the_norm_and_halves_the_angle():
    angle = torch.linspace(0.1, 3.0, 20, dtype=torch.float64)
    x = torch.tensor([2.0, 0.0], dtype=torch.float64).expand(20, 2)
    y = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    middle = halfway(x.view(20, 1, 1, 2), y.view(20, 1, 1, 2)).view(20, 2)
    expected = 2 * torch.stack([(angle / 2).cos(), (angle / 2).sin()], 1)
    torch.testing.assert_close(middle, expected, rtol=0, atol=1e-12)


def test_halfway_of_parallel_and_of_opposite_vectors_is_their_mean():
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]).view(3, 1, 1, 2)
    y = torch.tensor([[1.0, 2.0], [3.0, 6.0], [-3.0, -6.0]]).view(3, 1, 1, 2)
    torch.testing.assert_close(halfway(x, y), (x + y) / 2)


def test_interpolated_latents_lie_halfway_to_a_neighbour():
    queries, others = _latents(5, 2, 2, 2), _latents(30, 2, 2, 2, seed=1)
    found = interpolated(queries, others, draws=generator("test"), count=3)
    nearest = nearest_by_cosine(queries, others, 3)
    for i in range(5):
        candidates = [halfway(queries[i : i + 1], others[j : j + 1])[0] for j in nearest[i]]
        assert any(torch.allclose(found[i], candidate) for candidate in candidates)


def _upsampled(z):
    return F.interpolate(z[:, :3], scale_factor=4, mode="nearest")


def test_a_commuting_decoder_has_no_error_and_another_one_has_that_of_a_plain_loop():
    latents = _latents(3, 3, 8, 8).float()

    def constant(z):
        return z.mean((2, 3), keepdim=True).expand(-1, -1, 4 * z.shape[2], 4 * z.shape[3])

    flat = latents.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)
    assert equivariance_error(constant, flat, constant(flat)) == pytest.approx(0, abs=1e-6)
    decoded = _upsampled(latents)
    expected = []
    for scale in (0.5, 0.25):
        small = F.interpolate(latents, scale_factor=scale, mode="bilinear", align_corners=False)
        target = F.interpolate(decoded, scale_factor=scale, mode="bilinear", align_corners=False)
        expected.append(float(np.mean((_upsampled(small).numpy() - target.numpy()).astype(np.float64) ** 2)))
    assert scale_error(_upsampled, latents, decoded, scales=(0.5, 0.25)) == pytest.approx(math.sqrt(np.mean(expected)), rel=1e-6)


def test_a_decoder_that_depends_on_the_orientation_has_an_equivariance_error():
    latents = _latents(2, 3, 8, 8).float()

    def ramp(z):
        rows = torch.linspace(-1, 1, 4 * z.shape[2]).view(1, 1, -1, 1)
        return rows.expand(len(z), 3, -1, 4 * z.shape[3])

    expected = []
    for side in (8, 16, 24):      # of 32 pixels; rotated by one, two and three quarter turns
        small = F.interpolate(ramp(latents), size=(side, side), mode="bilinear", align_corners=False).numpy()
        upright = np.broadcast_to(np.linspace(-1, 1, side)[:, None], (side, side))
        expected += [((upright - np.rot90(small, turns, axes=(-2, -1))) ** 2).mean() for turns in (1, 2, 3)]
    assert equivariance_error(ramp, latents, ramp(latents)) == pytest.approx(math.sqrt(np.mean(expected)), rel=1e-5)
    assert expected[1] > 1.5 * expected[0]
    with pytest.raises(ValueError, match="not a whole number of cells"):
        scale_error(_upsampled, latents[..., :6, :6], _upsampled(latents)[..., :24, :24], scales=(0.25,))
