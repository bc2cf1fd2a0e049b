"""Guidance of Gaussian mixtures, whose velocity is known, against a restatement in numpy integrated by scipy, and closed forms.

Data of class k are N(m_k, diag(s_k^2)). At time t of the linear flow they are N((1 - t) m_k, diag(v_k)) with
v_k = (1 - t)^2 s_k^2 + t^2, and their velocity is E[noise - x | x_t] = -m_k + (t - (1 - t) s_k^2) / v_k (x_t - (1 - t) m_k).
The velocity of a mixture is the mean of its classes' velocities, weighted by their probabilities given x_t.
"""

from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import softmax
from scipy.stats import norm

from smtool.diffusion import Flow, Sampler, sample

SHAPE = (4, 1, 2)
STEPS = 400
TOLERANCE = 3e-4
"""Heun's method with 400 steps, and float32 states as inputs of the network, as in sampling."""


@dataclass(frozen=True)
class Mixture:
    """means, stds: (K, 8), of each class, whose weights are equal; the null class is the whole mixture."""

    means: np.ndarray
    stds: np.ndarray

    def velocity(self, x, t, label):
        """The velocity at x (8,), in numpy, written as in the docstring above."""
        each = [self._of_class(k, x, t) for k in range(len(self.means))]
        if label < len(self.means):
            return each[label]
        places, widths = (1 - t) * self.means, np.sqrt((1 - t) ** 2 * self.stds**2 + t**2)
        return softmax(norm.logpdf(x, places, widths).sum(1)) @ np.array(each)

    def _of_class(self, k, x, t):
        mean, variance = self.means[k], self.stds[k] ** 2
        return -mean + (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2) * (x - (1 - t) * mean)


class Exact(torch.nn.Module):
    """A network that returns the exact velocity, as x_t's expectation of noise minus that of data, by Bayes' rule, in float64."""

    def __init__(self, mixture):
        super().__init__()
        self.means, self.variances = torch.from_numpy(mixture.means), torch.from_numpy(mixture.stds) ** 2

    def forward(self, x, t, labels):
        flat, t = x.double().flatten(1)[:, None], t.double()[:, None, None]
        total = (1 - t) ** 2 * self.variances + t**2
        rest = flat - (1 - t) * self.means                                        # (B, K, 8)
        data = self.means + (1 - t) * self.variances / total * rest
        noise = t / total * rest
        likelihood = -0.5 * (rest**2 / total + total.log()).sum(2)
        own = torch.nn.functional.one_hot(labels, len(self.means) + 1)[:, :-1].double()
        weight = torch.where((labels == len(self.means))[:, None], likelihood.softmax(1), own)
        return SimpleNamespace(output=(weight[:, :, None] * (noise - data)).sum(1).reshape(x.shape))


RNG = np.random.default_rng(0)
CLASSES = Mixture(RNG.normal(size=(3, 8)), RNG.uniform(0.3, 1.2, size=(3, 8)))
WORSE = Mixture(CLASSES.means + 0.3 * RNG.normal(size=(3, 8)), CLASSES.stds * RNG.uniform(1.1, 1.6, size=(3, 8)))
LABELS = torch.tensor([0, 1, 2, 1])
NOISE = torch.from_numpy(RNG.normal(size=(4, *SHAPE)))


def sampled(mixture, sampler, *, guide=None, shift=1.0):
    """Samples (4, 8), through the real sampler."""
    process = Flow(shift=shift).build()
    other = None if guide is None else Exact(guide)
    model = sampler.model(process, Exact(mixture), labels=LABELS, null=len(mixture.means), guide=other)
    return sample(process, model, NOISE, sampler, step_noise=None).flatten(1).numpy()


def integrated(strong, weak, *, scale, interval=(0.0, 1.0), channels=4):
    """Samples (4, 8) of dx/dt = weak + scale (strong - weak) on `interval` and the first channels, else strong.

    strong, weak: (x, t, label) -> velocity. Every piece of time is integrated by itself.
    """
    low, high = interval
    guided = np.repeat(np.arange(4) < channels, 2)
    ends = (1.0, high, low, 0.0)
    result = []
    for label, x in zip(LABELS.tolist(), NOISE.flatten(1).numpy(), strict=True):
        for start, end in pairwise(ends):
            inside = low <= (start + end) / 2 <= high

            def slope(t, x, label=label, inside=inside):
                velocity = strong(x, t, label)
                every = weak(x, t, label)
                return np.where(guided & inside, every + scale * (velocity - every), velocity)

            if start > end:
                x = solve_ivp(slope, (start, end), x, method="DOP853", rtol=1e-10, atol=1e-10).y[:, -1]
        result.append(x)
    return np.array(result)


def null_of(mixture):
    return lambda x, t, label: mixture.velocity(x, t, len(mixture.means))


HEUN = Sampler(kind="heun", steps=STEPS)
INTERVAL = (0.2 + 1e-6, 0.7)
"""Steps that start from 0.7 down to 0.2025 are guided: together from 0.7 to 0.2. A low end of 0.2 adds the step to 0.1975."""


def test_the_network_is_the_restatement():
    x, t = NOISE.flatten(1).numpy(), 0.37
    for label in range(4):
        found = Exact(CLASSES)(NOISE, torch.full((4,), t), torch.full((4,), label)).output.flatten(1).numpy()
        expected = [CLASSES.velocity(one, np.float64(np.float32(t)), label) for one in x]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("changes", [
    {"cfg_scale": 2.5},
    {"cfg_scale": 2.5, "cfg_interval": INTERVAL},
    {"cfg_scale": 2.5, "cfg_channels": 3},
    {"cfg_scale": 4.0, "cfg_channels": 3, "cfg_interval": INTERVAL},
], ids=["always", "interval", "three channels", "both"])
@pytest.mark.parametrize("guide", [None, WORSE], ids=["null class", "weaker model"])
def test_guided_samples_are_those_of_the_guided_equation(changes, guide):
    found = sampled(CLASSES, HEUN.model_copy(update=changes), guide=guide)
    interval = (round(changes["cfg_interval"][0], 3), 0.7) if "cfg_interval" in changes else (0.0, 1.0)
    weak = null_of(CLASSES) if guide is None else guide.velocity
    options = {"scale": changes["cfg_scale"], "interval": interval, "channels": changes.get("cfg_channels", 4)}
    expected = integrated(CLASSES.velocity, weak, **options)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    free = integrated(CLASSES.velocity, weak, scale=1.0)
    assert np.abs(expected - free).max() > 100 * TOLERANCE      # guidance moves samples


def test_a_guide_without_classes_takes_the_place_of_the_null_class():
    """Classifier-free guidance by a separate network: the same samples as from the null class of one network."""
    whole = Exact(CLASSES)
    process = Flow().build()

    def unconditional(x, t, labels):
        return whole(x, t, torch.full((len(x),), 3))

    sampler = Sampler(kind="euler", steps=20, cfg_scale=2.0)
    models = [sampler.model(process, whole, labels=LABELS, null=3, guide=guide) for guide in (None, unconditional)]
    found = [sample(process, model, NOISE, sampler, step_noise=None).numpy() for model in models]
    np.testing.assert_allclose(*found, atol=1e-12)


def test_autoguidance_of_one_gaussian_by_a_wider_one_has_a_closed_form():
    """Both velocities are linear: a deviation from the common mean is multiplied by s^w b^(1 - w), s and b the two stds.

    So samples are N(m, s^2 (s / b)^(2 (w - 1))): narrower than the data, in each channel by its own ratio.
    """
    mean, s, b, w = CLASSES.means[:1], CLASSES.stds[:1], 1.3 * CLASSES.stds[1:2], 1.8
    sampler, labels = HEUN.model_copy(update={"cfg_scale": w}), torch.zeros(4, dtype=torch.int64)
    process = Flow().build()
    model = sampler.model(process, Exact(Mixture(mean, s)), labels=labels, null=1, guide=Exact(Mixture(mean, b)))
    found = sample(process, model, NOISE, sampler, step_noise=None).flatten(1).numpy()
    np.testing.assert_allclose(found, mean + s**w * b ** (1 - w) * NOISE.flatten(1).numpy(), atol=TOLERANCE)


def test_within_an_interval_the_closed_form_counts_its_part_of_the_path():
    """A deviation is multiplied by s (r(low) / r(high))^(w - 1), r the ratio of the two stds at a time; s in other channels."""
    mean, s, b, w = CLASSES.means[:1], CLASSES.stds[:1], 1.5 * CLASSES.stds[:1], 2.2
    sampler = HEUN.model_copy(update={"cfg_scale": w, "cfg_interval": INTERVAL, "cfg_channels": 3})
    process, labels = Flow().build(), torch.zeros(4, dtype=torch.int64)
    model = sampler.model(process, Exact(Mixture(mean, s)), labels=labels, null=1, guide=Exact(Mixture(mean, b)))
    found = sample(process, model, NOISE, sampler, step_noise=None).flatten(1).numpy()
    ratio = [np.sqrt(((1 - t) ** 2 * s**2 + t**2) / ((1 - t) ** 2 * b**2 + t**2)) for t in (0.2, 0.7)]
    factor = np.where(np.repeat(np.arange(4) < 3, 2), s * (ratio[0] / ratio[1]) ** (w - 1), s)
    np.testing.assert_allclose(found, mean + factor * NOISE.flatten(1).numpy(), atol=TOLERANCE)


def test_a_shift_of_the_grid_changes_steps_but_not_the_guided_equation():
    sampler = HEUN.model_copy(update={"steps": 2 * STEPS, "cfg_scale": 2.0})
    expected = integrated(CLASSES.velocity, WORSE.velocity, scale=2.0)
    np.testing.assert_allclose(sampled(CLASSES, sampler, guide=WORSE, shift=3.0), expected, atol=TOLERANCE)
