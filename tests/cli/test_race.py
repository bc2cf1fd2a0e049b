"""How `smtool race` reads its arguments."""

import pytest
import torch

from smtool.cli.race import _budget, _devices
from smtool.commands.race.race import Budget
from smtool.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "budget"),
    [(None, Budget()), ("2000", Budget(steps=2000)), ("90s", Budget(seconds=90)), ("10m", Budget(seconds=600))],
)
def test_a_budget_is_steps_or_a_time(text, budget):
    assert _budget(text) == budget


@pytest.mark.parametrize("text", ["0", "-3", "ten", "5d", ""])
def test_what_is_neither_is_refused(text):
    with pytest.raises(RecipeError, match=f"--budget {text}: expected"):
        _budget(text)


def test_every_gpu_is_taken_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr("smtool.cli.race.computing_device", lambda name: "cuda" if name == "auto" else name)
    assert _devices("auto") == ["cuda:0", "cuda:1", "cuda:2"]
    assert _devices("cuda:1") == ["cuda:1"]
    assert _devices("cpu") == ["cpu"]
