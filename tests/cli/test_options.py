"""Values of the shared options: times, devices, samplers."""

import pytest
import torch

from smtool.cli import options
from smtool.cli.options import computing_device, first_line, seconds
from smtool.diffusion.samplers import SAMPLERS
from smtool.errors import RecipeError


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("2m", 120), ("1.5h", 5400), ("45", 45)])
def test_a_time_without_a_unit_is_in_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "m", "2d", "ten", "-5m", "0s", "nan"])
def test_an_invalid_time_is_an_error(text):
    with pytest.raises(RecipeError, match=f"--budget {text}: expected a time such as 90s, 2m or 1h"):
        seconds(text)


def test_auto_is_a_gpu_if_there_is_one(monkeypatch):
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert computing_device("auto") == name
    assert computing_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["abacus", "cuda:99"])
def test_an_unavailable_device_is_an_error(name):
    with pytest.raises(RecipeError, match=f"--device {name}: not available here") as caught:
        computing_device(name)
    assert "--device cpu" in str(caught.value)


def test_the_first_line_of_an_empty_message_is_empty():
    assert first_line(ValueError()) == ""
    assert first_line(ValueError("one\ntwo")) == "one"


def test_the_help_lists_all_samplers():
    assert options.SAMPLERS.split(", ") == list(SAMPLERS)
