"""Commands parsed for real, with the pipeline behind them replaced by a note of how it was called."""

import importlib

import pytest
from typer.testing import CliRunner

from smtool.cli import app


@pytest.fixture
def called(monkeypatch):
    """called(function, *arguments) -> (positional, named) arguments that this function of a pipeline gets from a command line."""

    def run(function, *arguments):
        module, _, name = function.rpartition(".")
        noted = []
        monkeypatch.setattr(importlib.import_module(module), name, lambda *args, **named: noted.append((args, named)))
        ended = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
        (call,) = noted
        call[1].pop("console", None)
        return call

    return run


@pytest.fixture
def output():
    """output(*arguments) -> what the command prints; it must end well."""

    def run(*arguments):
        ended = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
        return ended.output

    return run
