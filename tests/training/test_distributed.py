"""Averages over two gloo ranks, in two processes on loopback; with one rank nothing changes."""

import json
import subprocess
import sys

import pytest
import torch
from torch.nn import Parameter

from smtool.training.distributed import Ranks, any_rank, average_gradients, average_values, averaged

WORKER = """
import json, sys, time, torch
from datetime import timedelta
from pathlib import Path
from torch.nn import Parameter
from smtool.training import distributed
from smtool.training.distributed import any_rank, average_gradients, average_values, averaged, gathered_rows, joined, wait_for_all
distributed._HUNG = timedelta(seconds=3)
with joined("cpu") as ranks:
    wait_for_all()
    used, unused = Parameter(torch.zeros(3)), Parameter(torch.zeros(2))
    half = Parameter(torch.zeros(2, dtype=torch.float64))
    used.grad, half.grad = torch.full((3,), 1.0 + ranks.rank), torch.full((2,), 10.0 * ranks.rank, dtype=torch.float64)
    average_gradients([used, unused, half])
    found = {
        "gradient": used.grad.tolist(), "half": half.grad.tolist(), "unused": unused.grad,
        "values": average_values({"a": torch.tensor(float(ranks.rank)), "b": torch.tensor(4.0)}),
        "mean": averaged(torch.tensor(2.0 * ranks.rank)).item(),
        "any": [any_rank(ranks.rank == 1, "cpu"), any_rank(False, "cpu")],
        "share": ranks.local_slice(10),
    }
    own = torch.tensor(ranks.positions(7))
    rows = gathered_rows({"number": own, "first": own[:2, None] * torch.ones(3)}, ranks)
    found["rows"] = {name: value.tolist() for name, value in rows.items()}
    time.sleep(0 if ranks.rank else 4)
    wait_for_all()      # must not time out
    Path(sys.argv[1], f"{ranks.rank}.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_both_ranks_hold_the_mean_and_the_first_holds_all_rows(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    subprocess.run([*launch, str(script), str(tmp_path)], check=True, capture_output=True, timeout=120)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first.pop("share") == [0, 5]
    assert second.pop("share") == [5, 10]
    assert first.pop("rows") == {"number": [0, 1, 2, 3, 4, 5, 6, 6], "first": [[float(row)] * 3 for row in range(4)]}
    assert second.pop("rows") == {}
    assert first == second
    assert first == {
        "gradient": [1.5, 1.5, 1.5],
        "half": [5.0, 5.0],
        "unused": None,
        "values": {"a": 0.5, "b": 4.0},
        "mean": 1.0,
        "any": [True, False],
    }


def test_one_rank_changes_nothing():
    parameter = Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    average_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 1.0]
    assert averaged(parameter.grad) is parameter.grad
    assert average_values({"a": torch.tensor(2.0)}) == {"a": 2.0}
    assert average_values({}) == {}
    assert (any_rank(True, "cpu"), any_rank(False, "cpu")) == (True, False)


@pytest.mark.parametrize(("count", "world"), [(1, 1), (7, 2), (8, 4), (2, 4)])
def test_positions_are_equally_many_on_all_ranks_and_cover_all(count, world):
    shares = [Ranks(rank, world, "cpu").positions(count) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-count // world)}
    in_order = [position for row in zip(*shares, strict=True) for position in row]
    assert in_order[:count] == list(range(count)) and set(in_order[count:]) <= {count - 1}


@pytest.mark.parametrize("world", [1, 2, 4])
def test_shares_cover_the_batch_once(world):
    shares = [Ranks(rank, world, "cpu").local_slice(12) for rank in range(world)]
    assert [position for start, stop in shares for position in range(start, stop)] == list(range(12))
