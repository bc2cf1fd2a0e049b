import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import torch

from smtool.metrics import velocity_ambiguity as module
from smtool.metrics.velocity_ambiguity import velocity_ambiguity
from smtool.randomness import generator


def _latents(count, *shape, seed=0):
    return torch.randn(count, *shape, generator=generator("test", seed), dtype=torch.float64)


def _two_points(a: float) -> float:
    """VIV of z = +-a: Var[z | x_t] = a^2 / cosh^2(a (1 - t) x / t^2), integrated over x_t given z = a and over t."""

    def given(t: float) -> float:
        def integrand(noise: float) -> float:
            x = (1 - t) * a + t * noise
            tanh = math.tanh(a * (1 - t) * x / t**2)
            return (1 - tanh**2) * math.exp(-(noise**2) / 2) / math.sqrt(2 * math.pi)

        return a**2 / t**2 * scipy.integrate.quad(integrand, -9, 9, points=[-a * (1 - t) / t], limit=200)[0]

    return scipy.integrate.quad(given, 0.05, 1, limit=200)[0] / (a**2 + 1)      # below t = .05: under e^-80


@pytest.mark.parametrize("a", [0.7, 1.0, 2.0])
def test_the_ambiguity_of_two_latents_equals_quadrature(a):
    latents = torch.tensor([-a, a]).view(2, 1, 1, 1)
    found = velocity_ambiguity(latents, draws=generator("test"), queries=20_000)
    assert found.value == pytest.approx(_two_points(a), abs=4 * found.error)
    assert found.error < 0.004
    assert found.num_latents == 2


def test_the_variance_equals_that_of_the_velocities_by_loops():
    """v = n_i - z_i with n_i = (x_t - (1 - t) z_i) / t for each latent, weighted by its posterior, for the same draws of x_t."""
    latents, queries = _latents(7, 2, 2, 1), 6
    draws = generator("test")
    z = latents.flatten(1).numpy()
    start = torch.rand(1, generator=draws, dtype=torch.float64).item()
    own = torch.randint(7, (queries,), generator=draws).tolist()
    noise = torch.randn(queries, 4, generator=draws, dtype=torch.float64).numpy()
    values = []
    for k in range(queries):
        t = (k + start) / queries
        x = (1 - t) * z[own[k]] + t * noise[k]
        weights = scipy.special.softmax([-((x - (1 - t) * one) ** 2).sum() / (2 * t**2) for one in z])
        velocities = np.array([(x - (1 - t) * one) / t - one for one in z])
        mean = weights @ velocities
        values.append(sum(w * ((v - mean) ** 2).sum() for w, v in zip(weights, velocities, strict=True)))
    total = z.var(0).sum() + 4
    found = velocity_ambiguity(latents, draws=generator("test"), queries=queries)
    assert found.value == pytest.approx(np.mean(values) / total, rel=1e-9)


def test_chunks_of_latents_do_not_change_the_value(monkeypatch):
    latents = _latents(50, 2, 3, 3)
    whole = velocity_ambiguity(latents, draws=generator("test"))
    monkeypatch.setattr(module, "_CHUNK", 7 * 18)
    assert velocity_ambiguity(latents, draws=generator("test")).value == pytest.approx(whole.value, rel=1e-12)
    offset = velocity_ambiguity(latents + 100, draws=generator("test")).value      # the path moves along
    assert offset == pytest.approx(whole.value, rel=1e-6)


def test_one_latent_has_no_ambiguity_and_many_gaussian_ones_nearly_the_closed_form():
    """For Gaussian data of variance 1: Var[v | x_t] = 1 / ((1 - t)^2 + t^2), whose mean over t is pi / 2; Var[v] = 2."""
    assert velocity_ambiguity(_latents(1, 1, 2, 2), draws=generator("test")).value == pytest.approx(0, abs=1e-9)
    found = velocity_ambiguity(_latents(20_000, 1, 1, 1), draws=generator("test"), queries=2000)
    assert found.value == pytest.approx(math.pi / 4, rel=0.03)


def test_the_error_is_that_of_repeated_draws():
    latents = _latents(40, 1, 2, 2)
    found = [velocity_ambiguity(latents, draws=generator("test", k), queries=128) for k in range(100)]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.sqrt(np.mean([one.error**2 for one in found])) == pytest.approx(spread, rel=0.3)


def test_ambiguity_grows_with_the_number_of_latents():
    latents = _latents(512, 2, 2, 2)
    values = [velocity_ambiguity(latents[:count], draws=generator("test")).value for count in (32, 128, 512)]
    assert values[0] < values[1] < values[2]


def test_no_latents_infinite_ones_and_odd_numbers_of_queries_are_refused():
    latents = _latents(3, 1, 2, 2)
    for bad in (latents[:0], latents / 0):
        with pytest.raises(ValueError, match="at least one latent, and only finite ones"):
            velocity_ambiguity(bad, draws=generator("test"))
    with pytest.raises(ValueError, match="an even number of queries, 2 or more, but got 5"):
        velocity_ambiguity(latents, draws=generator("test"), queries=5)
