"""How `smtool race` parses --budget and --device."""

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
def test_an_invalid_budget_is_an_error(text):
    with pytest.raises(RecipeError, match=f"--budget {text}: expected"):
        _budget(text)


def test_auto_uses_all_gpus_and_a_named_device_only_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr("smtool.cli.race.computing_device", lambda name, float64: "cuda" if name == "auto" else name)
    assert _devices("auto") == ["cuda:0", "cuda:1", "cuda:2"]
    assert _devices("cuda:1") == ["cuda:1"]
    assert _devices("cpu") == ["cpu"]
