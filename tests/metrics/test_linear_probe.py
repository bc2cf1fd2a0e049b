import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch

from smtool.metrics.linear_probe import linear_probe, logistic_regression, pooled
from smtool.randomness import generator


def _classes(count: int, channels: int, classes: int, *, seed: int, apart: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian features around one random centre for each class; float64, labels."""
    draws = generator("test", seed)
    centres = apart * torch.randn(classes, channels, generator=generator("centres"), dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=draws)
    return centres[labels] + torch.randn(count, channels, generator=draws, dtype=torch.float64), labels


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 4), (6, 3)])
def test_the_minimum_is_that_of_scipy(channels, classes):
    x, labels = _classes(80, channels, classes, seed=0)
    a, y = x.numpy(), labels.numpy()

    def objective(flat: np.ndarray) -> float:
        weights, bias = flat[:-classes].reshape(channels, classes), flat[-classes:]
        log_p = scipy.special.log_softmax(a @ weights + bias, axis=1)
        return float((-log_p[np.arange(len(y)), y].sum() + (weights**2).sum() / 2) / len(y))

    best = scipy.optimize.minimize(objective, np.zeros((channels + 1) * classes), method="BFGS", options={"gtol": 1e-9})
    weights, bias = logistic_regression(x, labels, classes)
    np.testing.assert_allclose(weights.numpy(), best.x[:-classes].reshape(channels, classes), atol=1e-4)
    np.testing.assert_allclose(bias.numpy(), best.x[-classes:], atol=1e-4)
    assert bias.sum().item() == pytest.approx(0, abs=1e-9)
    assert objective(np.concatenate([weights.numpy().ravel(), bias.numpy()])) <= best.fun + 1e-12


def test_the_accuracy_is_counted_on_the_test_features():
    """Two classes at +-1 on a line with equal numbers: the boundary is at 0, whatever the penalty."""
    train = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    labels = torch.tensor([7, 7, 3, 3])
    test = torch.tensor([[-0.1], [0.1], [5.0], [-5.0], [2.0]])
    found = linear_probe(train, labels, test, torch.tensor([7, 3, 7, 7, 9]))      # right, right, wrong, right, unknown class
    assert found.accuracy == 3 / 5
    assert found.error == pytest.approx(math.sqrt(0.6 * 0.4 / 5))
    assert found.chance in (3 / 5, 1 / 5)      # both classes are equally frequent in training
    assert (found.num_train, found.num_test, found.num_classes) == (4, 5, 2)


def test_the_accuracy_of_two_gaussians_is_that_of_the_best_classifier():
    draws, n = generator("test"), 4000
    labels = torch.arange(n) % 2
    x = torch.randn(n, 5, generator=draws) + 0.6 * labels[:, None]
    found = linear_probe(x[: n // 2], labels[: n // 2], x[n // 2 :], labels[n // 2 :])
    best = scipy.stats.norm.cdf(0.6 * math.sqrt(5) / 2)
    assert found.accuracy == pytest.approx(best, abs=4 * found.error)


def test_shuffled_labels_leave_chance():
    x, labels = _classes(3000, 4, 5, seed=1, apart=3)
    test, test_labels = _classes(3000, 4, 5, seed=2, apart=3)
    shuffled = labels[torch.randperm(len(labels), generator=generator("shuffled"))]
    assert linear_probe(x, labels, test, test_labels).accuracy > 0.8
    found = linear_probe(x, shuffled, test, test_labels)
    assert found.accuracy < 0.2 + 0.1


def test_scale_and_offset_of_a_channel_do_not_matter_and_a_constant_one_neither():
    x, labels = _classes(200, 3, 3, seed=3)
    test, test_labels = _classes(200, 3, 3, seed=4)
    plain = linear_probe(x, labels, test, test_labels)
    scale, offset = torch.tensor([1e-3, 1.0, 1e4]), torch.tensor([5.0, 0.0, -1e3])

    def changed(features):
        return torch.cat([features * scale + offset, torch.full((len(features), 1), 3.0)], 1)

    assert linear_probe(changed(x), labels, changed(test), test_labels) == plain
    assert plain.accuracy > 0.5


def test_pooling_is_the_mean_over_positions(rng):
    x = rng.standard_normal((3, 4, 5, 6))
    np.testing.assert_allclose(pooled(torch.from_numpy(x)).numpy(), x.reshape(3, 4, 30).mean(2), atol=1e-14)


def test_one_class_wrong_shapes_and_infinite_features_are_refused():
    x, y = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    with pytest.raises(ValueError, match="at least 2 classes, but the training images have 1"):
        linear_probe(x, torch.zeros(6, dtype=torch.int64), x, y)
    with pytest.raises(ValueError, match=r"test features \(N, C\) need one label each, but have shapes \(6, 3\)"):
        linear_probe(x, y, torch.randn(6, 3), y)
    with pytest.raises(ValueError, match=r"training features .*\(6, 2\), \(5,\)"):
        linear_probe(x, y[:5], x, y)
    with pytest.raises(ValueError, match="training features are not all finite"):
        linear_probe(x / 0, y, x, y)
