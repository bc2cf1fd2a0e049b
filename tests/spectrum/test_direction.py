"""Compare RMSC and Proposition 3.2 with a loop over tokens, and the filters with scipy's DCT, the mean and the identity."""

import math

import numpy as np
import pytest
import scipy.fft
import torch
from torch.testing import assert_close

from smtool.spectrum import difference_of_gaussians, directional_energy, rmsc, spatial_normalize

SHAPES = [(2, 5, 8, 8), (3, 16, 4, 6), (1, 3, 7, 5)]


def features_of(rng: np.random.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape) + 0.7)


@pytest.mark.parametrize("shape", SHAPES)
def test_rmsc_equals_a_loop_over_tokens(rng, shape):
    features = features_of(rng, shape)
    for image, found in zip(features.numpy(), rmsc(features), strict=True):
        tokens = [image[:, i, j] / np.linalg.norm(image[:, i, j]) for i in range(shape[2]) for j in range(shape[3])]
        centre = sum(tokens) / len(tokens)
        expected = math.sqrt(sum(float(((u - centre) ** 2).sum()) for u in tokens) / len(tokens))
        assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_proposition_3_2_squared_rmsc_is_the_directional_energy_outside_dc(rng, shape):
    features = features_of(rng, shape)
    assert_close(directional_energy(features), rmsc(features).square(), rtol=1e-12, atol=0)


def test_directional_energy_equals_the_dct_along_the_token_index(rng):
    """The paper's form: a 1-D DCT over the T tokens."""
    features = features_of(rng, (1, 6, 5, 4))
    tokens = features[0].flatten(1).numpy().T
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    coefficients = scipy.fft.dct(unit, axis=0, norm="ortho")
    assert directional_energy(features).item() == pytest.approx((coefficients[1:] ** 2).sum() / len(tokens), rel=1e-12)


def test_parallel_tokens_have_no_rmsc_and_opposite_ones_have_one():
    ray = torch.tensor([1.0, 2.0, -1.0])[None, :, None, None]
    lengths = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    assert rmsc(ray * lengths).item() == pytest.approx(0, abs=1e-6)
    checkers = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)
    assert rmsc(ray * checkers).item() == pytest.approx(1, abs=1e-6)


def test_the_filters_stay_in_float32_under_autocast_and_give_gradients(rng):
    features = features_of(rng, (2, 4, 6, 6)).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = difference_of_gaussians(features, 0.5, 2.0, 0.6)
        value = directional_energy(features)
    assert_close(found, difference_of_gaussians(features, 0.5, 2.0, 0.6), rtol=0, atol=0)
    assert value.dtype == torch.float32
    (found.sum() + value.sum()).backward()
    assert features.grad is not None and bool(features.grad.isfinite().all())


@pytest.mark.parametrize("alpha", [0.6, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_with_an_infinite_outer_sigma_it_is_spatial_normalization(rng, shape, alpha):
    features = features_of(rng, shape)
    assert_close(difference_of_gaussians(features, 0, math.inf, alpha), spatial_normalize(features, alpha), rtol=0, atol=1e-12)
    single = difference_of_gaussians(features.float(), 0, math.inf, alpha)
    # DCT and inverse along two axes: four sums of n products, whose rounding errors grow as eps sqrt(n)
    bound = 4 * torch.finfo(torch.float32).eps * math.sqrt(max(shape[2:])) * float(single.abs().max())
    assert_close(single.double(), spatial_normalize(features, alpha), rtol=0, atol=bound)


def test_spatial_normalization_equals_numpy(rng):
    features = features_of(rng, (2, 3, 4, 5))
    x = features.numpy()
    expected = (x - 0.6 * x.mean((2, 3), keepdims=True)) / (x.std((2, 3), ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(spatial_normalize(features).numpy(), expected, rtol=1e-12)


def test_the_gaussians_equal_a_gain_on_scipys_dct(rng):
    x = rng.standard_normal((6, 9))
    u, v = np.arange(6)[:, None], np.arange(9)
    gain = [np.exp(-(s**2) * ((np.pi * u / 6) ** 2 + (np.pi * v / 9) ** 2) / 2) for s in (0.75, 3.0)]
    expected = scipy.fft.idctn(scipy.fft.dctn(x, norm="ortho") * (gain[0] - 0.8 * gain[1]), norm="ortho") / (x.std(ddof=1) + 1e-6)
    found = difference_of_gaussians(torch.from_numpy(x)[None, None], 0.75, 3.0, 0.8)[0, 0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_far_from_the_border_it_is_a_convolution_with_a_gaussian():
    impulse = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    impulse[..., 20, 20] = 1
    found = difference_of_gaussians(impulse, 2.0, 2.0, 0.0)[0, 0] * (impulse.std() + 1e-6)
    distance = torch.arange(-20, 21, dtype=torch.float64).square()
    expected = torch.exp(-(distance[:, None] + distance) / 8) / (8 * math.pi)
    assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", [-1.0, math.nan])
def test_a_sigma_that_is_no_width_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma2 must be 0 or more"):
        difference_of_gaussians(torch.ones(1, 1, 4, 4), 0.0, sigma, 1.0)
