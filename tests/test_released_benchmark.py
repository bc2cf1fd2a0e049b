"""benchmarks/released without checkouts: the alternation of two trainers, the comparison of losses, the sentence."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.released.alternation import Alternation, Difference, differences


def test_both_trainers_get_each_batch_and_each_pays_for_its_own_step():
    """A clock that only steps move: ours take 1, 2, 1, 2 ..., released ones 10, 20, 10, 20 ..."""
    now, seen = [0.0], []

    def step(number: int) -> dict[str, float]:
        seen.append(("ours", number))
        now[0] += 1 + number % 2
        return {"loss": float(number)}

    found = Alternation(lambda number: number, step, 6, lambda: now[0], lookahead=1)
    assert list(found) == [0] and not seen
    for batch in itertools.islice(found, 6):
        seen.append(("released", batch))
        now[0] += 10 * (1 + batch % 2)
    assert seen == [(name, number) for number in range(6) for name in ("ours", "released")]
    row = found.row("name", range(2, 6), aim=1.0)
    assert (row.ours, row.yardstick, row.best_ratio) == (1500, 15_000, 10)
    assert len(found.ours) == 6 and len(found.released) == 5      # the last released step never asks for a batch


def test_losses_are_compared_by_the_names_that_both_have():
    found = differences([{"a": 1.0, "b": 5.0}, {"a": 2.0}], [{"a": 1.0}, {"a": 1.6, "c": 0.0}])
    assert found == [Difference(0.0, "a", 0), Difference(pytest.approx(0.25), "a", 1)] and max(found).step == 1
    with pytest.raises(ValueError, match="step 0 has no loss that both report"):
        differences([{"a": 1.0}], [{"b": 1.0}])


def test_without_a_checkout_one_sentence_says_so(tmp_path):
    call = [sys.executable, "-m", "benchmarks.released", "repa", "--reference", str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[1])
    assert done.returncode == 0 and done.stdout.startswith("Not run: ") and done.stdout.count("\n") == 1
