"""Networks built without values have the same names and shapes, and draw no random numbers."""

import pytest
import torch

from smtool.networks.shapes_only import shapes_only
from smtool.networks.sit import SiT
from smtool.networks.uvit import UViT

SIZES = {"size": "custom", "depth": 2, "width": 32, "heads": 2, "patch": 2}


@pytest.mark.parametrize("config", [SiT(**SIZES), UViT(**SIZES)], ids=["sit", "uvit"])
def test_names_and_shapes_are_those_of_the_network_and_no_random_number_is_used(config):
    whole = config.build((4, 8, 8), 3).state_dict()
    before = torch.get_rng_state()
    with shapes_only():
        found = config.build((4, 8, 8), 3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in whole.items()}
    assert all(value.is_meta for value in found.values())


def test_tensors_on_other_devices_are_written():
    with shapes_only():
        values = torch.zeros(3, device="cpu").fill_(2.0)
    assert torch.equal(values, torch.full((3,), 2.0))


def test_parameters_can_be_frozen():
    with shapes_only():
        layer = torch.nn.Linear(2, 2).requires_grad_(False)
        layer.bias.requires_grad_(True)
    assert [parameter.requires_grad for parameter in layer.parameters()] == [False, True]
