"""Exit codes of errors, and the sentence that each prints to stderr."""

import sys

import pytest
import torch

from smtool import cli, errors


@pytest.fixture
def ending(monkeypatch, capsys):
    """(exit code, stderr) of a command that ends in an error."""

    def run(error, *arguments):
        def app(given):
            app.given = given
            raise error

        monkeypatch.setattr(cli, "app", app)
        monkeypatch.setattr(sys, "argv", ["smtool", "eval", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert app.given == ["eval"]      # --debug is removed before the commands parse the line
        return end.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RecipeError("words"), 2),
        (errors.DataError("words"), 3),
        (errors.CheckpointError("words"), 3),
        (errors.WeightsError("words"), 4),
        (torch.OutOfMemoryError("words"), 5),
        (MemoryError("words"), 5),
        (errors.TrainingError("words"), 6),
        (errors.DiskError("words"), 7),
        (errors.Interrupted("words"), 130),
        (KeyError("words"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_class_of_error_has_its_exit_code_and_no_traceback(ending, error, code):
    found, said = ending(error)
    assert (found, "words" in said, "Traceback" in said) == (code, True, False)
    assert said.startswith("smtool: ")


def test_ctrl_c_has_exit_code_130():
    assert cli._report(KeyboardInterrupt()) == 130


def test_debug_shows_the_traceback_even_after_the_command(ending):
    code, said = ending(errors.DataError("words"), "--debug")
    assert (code, "Traceback" in said) == (3, True)


def test_a_hint_has_its_own_line(ending):
    _, said = ending(errors.DataError("Nothing here.", hint="Look there."))
    assert said == "smtool: Nothing here.\n  Look there.\n"


def test_an_internal_error_says_how_to_see_the_traceback(ending):
    _, said = ending(ZeroDivisionError("first\nsecond"))
    assert said == "smtool: internal error: ZeroDivisionError: first\n  --debug shows the traceback.\n"


def test_memory_of_the_machine_that_torch_cannot_get_has_exit_code_5():
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 56)
    assert cli._report(found.value) == 5
    assert cli._report(RuntimeError("shapes differ")) == 1


def test_a_file_that_the_system_refuses_is_named(tmp_path, capsys):
    for call, name in ((tmp_path.read_text, str(tmp_path)), ((tmp_path / ("x" * 300)).stat, "xxx")):
        with pytest.raises(OSError) as found:
            call()
        assert cli._report(found.value) == 3
        assert name in capsys.readouterr().err
