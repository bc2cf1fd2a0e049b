import copy

import torch
from torch import nn

from smtool.features.frozen import Frozen, frozen_digests


def named(name: str, digest: str) -> Frozen:
    frozen = Frozen(nn.Linear(3, 3))
    frozen.name, frozen.digest = name, digest
    return frozen


def test_a_copy_holds_the_same_network():
    module = nn.Sequential(nn.Linear(2, 2), named("a", "1"))
    twin = copy.deepcopy(module)
    assert twin[1] is module[1] and twin[0] is not module[0]


def test_it_has_no_parameters_or_state_and_stays_in_eval_mode():
    frozen = Frozen(nn.Sequential(nn.Linear(3, 3), nn.Dropout()))
    module = nn.Sequential(frozen).train().to(torch.float64)
    assert not list(module.parameters()) and module.state_dict() == {}
    assert not frozen.network.training
    assert {weight.dtype for weight in frozen.network.parameters()} == {torch.float32}


def test_all_frozen_networks_inside_some_modules_are_found():
    inside = nn.ModuleDict({"method": nn.Sequential(nn.Linear(1, 1), named("a", "1"))})
    assert frozen_digests(None, named("b", "2"), inside) == {"a": "1", "b": "2"}
    assert frozen_digests(nn.Linear(1, 1)) == {}
