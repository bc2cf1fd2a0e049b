"""Sharding on two gloo ranks: size of shards, gathered tensors, and an overflow on one rank only."""

import json

import pytest
import torch
import warm_process
from torch import nn

from smtool.features.frozen import Frozen
from smtool.networks.sit import SiT
from smtool.training.distributed import Ranks
from smtool.training.sharding import Parallel, WholeCopy, refill

WORKER = """
import json, sys, torch
from copy import deepcopy
from pathlib import Path
from torch import nn
from smtool.networks.sit import SiT
from smtool.training.distributed import joined
from smtool.training.ema import EMA
from smtool.training.optimizer import AdamW
from smtool.training.precision import MixedPrecision
from smtool.training.sharding import WholeCopy, gathered, local, refill, shard, sum_in_next_backward

with joined("cpu") as ranks:
    torch.manual_seed(0)
    network = SiT(size="custom", depth=3, width=32, heads=2).build((4, 4, 4), 5)
    player = nn.ModuleDict({"network": network})
    before = {name: value.clone() for name, value in player.state_dict().items()}
    average, copy = EMA(decay=0.5, warmup=False).build(player), WholeCopy(player)
    for module in (player, average.module):
        shard(module, ranks)
    optimizer = AdamW(lr=0.1, warmup=0).build(player.named_parameters(), "cpu")
    mixed = MixedPrecision("fp16", "cpu")

    def update(gain):
        out = network(torch.ones(2, 4, 4, 4), torch.ones(2) / 2, torch.zeros(2, dtype=torch.long)).output
        mixed.backward((out - 1).square().mean())
        if gain != 1 and ranks.rank == 1:                              # an infinite gradient in one rank's shard alone
            local(next(iter(optimizer.parameters.values())).grad).fill_(gain)
        mixed.unscale(optimizer.torch)
        optimizer.clip()
        mixed.step(optimizer.torch)
        optimizer.torch.zero_grad()

    update(1)
    average.update(player, 1)
    held = {
        "parameters": sum(local(p).numel() for p in player.parameters()),
        "moments": sum(local(s).numel() for n, s in optimizer.state_dict().items() if n.endswith("exp_avg")),
        "learning": sum(local(p).numel() for p in optimizer.parameters.values()),
        "average": sum(local(p).numel() for p in average.module.parameters()),
        "total": sum(p.numel() for p in player.parameters()),
    }
    after = gathered(player.state_dict(), first=True)
    with copy.filled(here=ranks.first):
        whole = {name: value.clone() for name, value in copy.module.state_dict().items()} if ranks.first else {}
        outside = "meta" in {p.device.type for p in copy.module.parameters()}
    averaged = gathered(average.state_dict(), first=True)
    middle = {name: (before[name] + after[name]) / 2 for name in before}
    update(float("inf"))
    spared = gathered(player.state_dict(), first=True)
    refill(player.state_dict(), before.items())
    again = gathered(player.state_dict(), first=True)
    torch.manual_seed(1)
    plain = SiT(size="custom", depth=2, width=32, heads=2).build((4, 4, 4), 5)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.normal_(0, 0.1)      # the gates and the last layer begin with 0
    rough, twice = deepcopy(plain), deepcopy(plain)
    shard(rough, ranks, torch.bfloat16)
    shard(twice, ranks)
    parts = torch.randn(2, 2, 2, 4, 4, 4)      # of each rank, two micro-batches of two latents

    def backward(network, x):
        network(x, torch.tensor([0.3, 0.7]), torch.tensor([1, 2])).output.square().mean().backward()

    early = []
    for number in range(2):
        sum_in_next_backward(twice, number == 1)
        backward(twice, parts[ranks.rank, number])
        early.append(all(p.grad is None for p in twice.parameters()))
    expected = deepcopy(plain)
    for x in parts.flatten(0, 1):
        backward(expected, x)
    pairs = [(a.grad / 2, b.grad) for a, b in zip(expected.parameters(), twice.parameters()) if a.grad is not None]
    accumulated = {
        "early": early, "gradients": max(float((a - b.full_tensor()).norm() / (a.norm() + 1e-6)) for a, b in pairs),
    }
    x = torch.randn(2, 4, 4, 4)
    used = []
    rough.blocks[0].register_forward_pre_hook(lambda block, given: used.append(next(block.parameters()).dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = [net(x, torch.tensor([0.3, 0.7]), torch.tensor([1, 2])).output for net in (plain, rough)]
    for out in outputs:
        out.float().square().mean().backward()
    pairs = [(a.grad, b.grad) for a, b in zip(plain.parameters(), rough.parameters()) if a.grad is not None]
    gathered_in_bf16 = {
        "dtypes": str(used[0]) == "torch.bfloat16" and all(b.dtype == torch.float32 for a, b in pairs),
        "output": float((outputs[0] - outputs[1]).norm() / outputs[0].norm()),
        "gradients": max(float((a - b.full_tensor()).norm() / (a.norm() + 1e-6)) for a, b in pairs),
    }
    equal = lambda a, b: a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    Path(sys.argv[1], f"{ranks.rank}.json").write_text(json.dumps({
        **held,
        "learned": not equal(before, after),
        "copied": equal(whole, after) if ranks.first else outside,
        "averaged": all(torch.allclose(averaged[name], middle[name], atol=1e-7) for name in middle),
        "spared": equal(spared, after),
        "refilled": equal(again, before),
        "bf16": gathered_in_bf16,
        "accumulated": accumulated,
        "elsewhere": len(gathered(player.state_dict(), first=ranks.first)),
    }))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("sharding")
    (folder / "worker.py").write_text(WORKER)
    ended = warm_process.run(folder / "worker.py", folder, ranks=2)
    files = [folder / f"{rank}.json" for rank in (0, 1)]
    assert all(file.exists() for file in files), ended.stderr[-2000:]
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.slow
def test_gradients_of_two_micro_batches_are_summed_over_the_ranks_in_the_last_one(found):
    for rank in found:
        assert rank["accumulated"]["early"] == [True, False]      # unsharded before
        assert rank["accumulated"]["gradients"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("what", ["parameters", "average", "moments"])
def test_each_rank_holds_half(found, what):
    total = found[0]["total"] if what != "moments" else sum(rank["learning"] for rank in found)
    assert sum(rank[what] for rank in found) == total
    assert all(0.45 < rank[what] / total < 0.55 for rank in found)      # the table of positions, (1, T, width), is not


@pytest.mark.slow
@pytest.mark.parametrize("what", ["learned", "copied", "averaged", "refilled"])
def test_gathered_tensors_are_complete_on_the_first_rank(found, what):
    assert all(rank[what] for rank in found)
    assert (found[0]["elsewhere"] > 0, found[1]["elsewhere"]) == (True, 0)


@pytest.mark.slow
def test_an_overflow_in_one_shard_skips_the_update_on_all_ranks(found):
    assert all(rank["spared"] for rank in found)


@pytest.mark.slow
def test_blocks_gathered_in_bf16_give_the_gradients_of_autocast_in_fp32_shards(found):
    for rank in found:
        assert rank["bf16"]["dtypes"]
        assert rank["bf16"]["output"] < 0.01 and rank["bf16"]["gradients"] < 0.03      # bf16 has 8 bits


@pytest.mark.parametrize(("precision", "gather", "expected"), [
    ("bf16", "precision", torch.bfloat16), ("bf16", "fp32", None), ("fp32", "precision", None), ("fp16", "precision", None),
])
def test_blocks_are_gathered_in_bf16_if_the_run_is_bf16(precision, gather, expected):
    assert Parallel(gather=gather).gathered_in(precision) is expected


@pytest.mark.parametrize(("world", "above", "expected"), [(2, 100, True), (2, 10_000, False), (1, 0, False)])
def test_shards_are_for_large_networks_on_several_ranks(world, above, expected):
    assert Parallel(shard_above=above).applies(nn.Linear(20, 20), Ranks(0, world, "cpu")) is expected


def test_a_whole_copy_has_the_modules_values_only_within_filled():
    module = SiT(size="custom", depth=1, width=16, heads=2).build((2, 4, 4), 0)
    copy = WholeCopy(module)
    assert {parameter.device.type for parameter in copy.module.parameters()} == {"meta"}
    with copy.filled(here=True):
        x, t = torch.ones(1, 2, 4, 4), torch.ones(1)
        assert torch.equal(copy.module(x, t, None).output, module(x, t, None).output)
    assert {parameter.device.type for parameter in copy.module.parameters()} == {"meta"}


def test_a_whole_copy_does_not_move_a_shared_frozen_network():
    module = nn.Sequential(nn.Linear(2, 2), Frozen(nn.Linear(2, 2)))
    copy = WholeCopy(module)
    with copy.filled(here=True):
        assert torch.equal(copy.module[0].weight, module[0].weight)
    assert copy.module[0].weight.is_meta and copy.module[1] is module[1]
    assert not module[1].network.weight.is_meta and not module[0].weight.is_meta


@pytest.mark.parametrize(
    ("tensors", "error"),
    [({"weight": torch.ones(2, 2)}, KeyError), ({"weight": torch.ones(2), "bias": torch.ones(2)}, RuntimeError)],
)
def test_tensors_that_do_not_fit_are_refused(tensors, error):
    with pytest.raises(error):
        refill(nn.Linear(2, 2).state_dict(), tensors.items())
    with pytest.raises(KeyError):
        refill(nn.Linear(2, 2).state_dict(), {**nn.Linear(2, 2).state_dict(), "more": torch.ones(1)}.items())
