"""Linear probe: how well a linear classifier tells classes apart from latents that are averaged over positions."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 500
_GRADIENT = 1e-8


@dataclass(frozen=True)
class LinearProbe:
    """accuracy: fraction of the test images whose class has the highest score; error: its binomial standard error; chance: the
    fraction that always naming the most frequent class of the training images gets right."""

    accuracy: float
    error: float
    chance: float
    num_train: int
    num_test: int
    num_classes: int


def pooled(latents: Tensor) -> Tensor:
    """Mean over positions, (N, C, h, w) -> (N, C), float64."""
    return latents.double().mean((2, 3))


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> LinearProbe:
    """Accuracy of multinomial logistic regression, fitted on features (N, C) and applied to features (M, C). No draws.

    labels: (N,) and (M,) integers. Features are standardized by mean and standard deviation of the training features (constant
    ones are only centred). A test image of a class without training images counts as wrong. Raises ValueError for fewer than
    two classes, for shapes that do not fit, and for features that are not finite.
    Published probes of autoencoders state neither pooling nor classifier (released-code.md#predictors); their accuracies, such as
    .76 % for the four channels of SD-VAE, fit the mean over positions.
    """
    for name, x, labels in (("training", train, train_labels), ("test", test, test_labels)):
        if x.ndim != 2 or labels.shape != (len(x),) or not len(x) or x.shape[1] != train.shape[1]:
            shapes = f"{tuple(x.shape)}, {tuple(labels.shape)}"
            raise ValueError(f"{name} features (N, C) need one label each, but have shapes {shapes}")
        if not bool(x.isfinite().all()):
            raise ValueError(f"{name} features are not all finite")
    classes, numbers = train_labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"a classifier needs at least 2 classes, but the training images have {len(classes)}")
    mean, std = train.double().mean(0), train.double().std(0, correction=0)
    scale = torch.where(std > 0, std, 1.0)
    weight, bias = logistic_regression((train.double() - mean) / scale, numbers, len(classes))
    found = classes[((test.double() - mean) / scale @ weight + bias).argmax(1)]
    accuracy = (found == test_labels).double().mean().item()
    common = classes[torch.bincount(numbers).argmax()]
    return LinearProbe(
        accuracy=accuracy,
        error=math.sqrt(accuracy * (1 - accuracy) / len(test)),
        chance=(test_labels == common).double().mean().item(),
        num_train=len(train),
        num_test=len(test),
        num_classes=len(classes),
    )


def logistic_regression(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weights (C, K) and biases (K,) that minimize (sum of cross-entropies + |weights|^2 / 2) / N, by L-BFGS in float64.

    features: (N, C); labels: (N,), 0 ... K - 1. The penalty is that of scikit-learn's LogisticRegression with its default C = 1;
    the biases have none and sum to 0. The minimum is unique. Raises ValueError if it is not reached in STEPS steps.
    """
    x = torch.cat([features.double(), features.new_ones(len(features), 1, dtype=torch.float64)], 1)
    target = torch.nn.functional.one_hot(labels, num_classes).double()
    weights = x.new_zeros(x.shape[1], num_classes)
    weights.grad = torch.zeros_like(weights)
    solver = torch.optim.LBFGS(
        [weights], max_iter=STEPS, max_eval=4 * STEPS, tolerance_grad=_GRADIENT, tolerance_change=0, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        """Value; the gradient goes to weights.grad."""
        with torch.no_grad():
            logits = x @ weights
            penalized = torch.cat([weights[:-1], torch.zeros_like(weights[-1:])])
            gradient = (x.T @ (logits.softmax(1) - target) + penalized) / len(x)
            assert weights.grad is not None
            weights.grad.copy_(gradient)
            return (logits.logsumexp(1).sum() - (logits * target).sum() + penalized.square().sum() / 2) / len(x)

    solver.step(loss)
    loss()
    assert weights.grad is not None
    if not float(weights.grad.abs().max()) <= 100 * _GRADIENT:
        raise ValueError(f"logistic regression did not converge in {STEPS} steps")
    return weights[:-1], weights[-1]
