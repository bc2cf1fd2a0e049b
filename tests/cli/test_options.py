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


@pytest.mark.parametrize(
    ("nvidia", "apple", "processes", "float64", "expected"),
    [
        (True, False, 1, True, "cuda"),
        (True, True, 4, False, "cuda"),
        (False, True, 1, False, "mps"),
        (False, True, 1, True, "cpu"),      # the command needs float64
        (False, True, 2, False, "cpu"),
        (False, False, 1, False, "cpu"),
    ],
)
def test_auto_is_a_gpu_that_works_for_the_command(monkeypatch, nvidia, apple, processes, float64, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: nvidia)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert computing_device("auto", float64=float64) == expected
    assert computing_device("cpu", float64=float64) == "cpu"


@pytest.mark.parametrize(("processes", "words"), [(1, "computes in float64, which an Apple GPU"), (2, "no collective")])
def test_an_apple_gpu_that_cannot_do_it_is_an_error_with_the_reason(monkeypatch, processes, words):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setattr(torch, "empty", lambda *args, device: None)      # as if it were there
    with pytest.raises(RecipeError, match=f"--device mps: .*{words}"):
        computing_device("mps", float64=processes == 1)


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "xpu", "meta2"])
def test_an_unavailable_device_is_an_error(name):
    with pytest.raises(RecipeError, match=f"--device {name}: not available here") as caught:
        computing_device(name)
    assert "--device cpu" in str(caught.value)
    assert len(str(caught.value)) < 300      # one sentence


def test_the_first_line_of_an_empty_message_is_empty():
    assert first_line(ValueError()) == ""
    assert first_line(ValueError("one\ntwo")) == "one"


def test_the_help_lists_all_samplers():
    assert options.SAMPLERS.split(", ") == list(SAMPLERS)
