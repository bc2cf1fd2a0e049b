"""Fixtures that parse real command lines; the pipeline function is replaced by one that records its arguments."""

import importlib

import pytest
from typer.testing import CliRunner

from smtool.cli import app


@pytest.fixture
def called(monkeypatch):
    """called(function, *arguments) -> (positional, named) arguments that the command line passes to this function."""

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
    """output(*arguments) -> what the command prints. The exit code must be 0."""

    def run(*arguments):
        ended = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
        return ended.output

    return run
