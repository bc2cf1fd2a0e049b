import math

import torch
from torch import nn

from smtool.networks.activations import LargestActivation


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def watched(*factors: float) -> LargestActivation:
    network, activations = nn.Sequential(*map(Times, factors)), LargestActivation()
    with activations.watching(network):
        network(torch.ones(2))
    network(torch.full((2,), 1e9))      # not recorded: outside the block
    return activations


def test_the_largest_activation_counts_its_magnitude_and_the_first_layer_that_breaks_is_named():
    assert watched(2.0, -7e4, 1e-3).largest() == (7e4 * 2, "1")
    assert watched(2.0, math.inf, 0.0).largest() == (math.inf, "1")      # layer 2 gives infinity times 0, NaN
