"""The options of `smtool` itself, and the examples in the help of its commands."""

import re
import shlex
from inspect import getdoc

import pytest
from typer.main import get_command

from smtool import __version__
from smtool.cli import app


def _commands(group, words=()):
    """(words, command) of every command, those of nested groups too."""
    for name, command in group.commands.items():
        found = (*words, name)
        yield from _commands(command, found) if hasattr(command, "commands") else [(found, command)]


COMMANDS = dict(_commands(get_command(app)))


def test_without_a_command_there_is_help(output):
    assert output("--version") == f"smtool {__version__}\n"
    for text in ("train-ae", "spectrum", "smtool quickstart"):
        assert text in output("--help")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_has_examples_that_the_command_can_parse(words):
    examples = re.findall(r"^smtool .*", getdoc(COMMANDS[words].callback), flags=re.MULTILINE)
    assert examples
    for example in examples:
        arguments = shlex.split(example)[1:]
        assert tuple(arguments[: len(words)]) == words
        COMMANDS[words].make_context("smtool", arguments[len(words) :])      # a usage error is raised


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_argument_and_option_has_a_sentence_of_help(words):
    shown = [one for one in COMMANDS[words].params if one.name != "help"]
    assert all((one.help or "").endswith(".") for one in shown)
