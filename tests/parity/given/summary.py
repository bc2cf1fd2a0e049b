"""Summaries of tensors: a norm, and projections on random directions, to which every element contributes."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from given.numbers import normal

DIRECTIONS = 2


def summary(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """norm: of all tensors together. direction: their inner products with fixed standard normal tensors, divided by the norm.

    The normal tensors are generated from smtool's names, so that swapped weights change the summary.
    """
    values = {name: tensor.detach().double() for name, tensor in tensors.items()}
    norm = math.sqrt(sum(float(value.square().sum()) for value in values.values()))
    products = [
        sum(float((normal(value.shape, "direction", number, name) * value).sum()) for name, value in values.items())
        for number in range(DIRECTIONS)
    ]
    return {"norm": norm, "direction": [product / norm if norm else 0.0 for product in products]}


def change(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, object]:
    """The summary of after - before, by name."""
    return summary({name: value.detach() - before[name] for name, value in after.items()})


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def array(tensor: Tensor) -> dict[str, object]:
    """A result's shape, summary and first numbers."""
    first = torch.as_tensor(tensor).detach().double().flatten()[:4]
    return {"shape": list(tensor.shape), **summary({"array": tensor}), "first": first.tolist()}
