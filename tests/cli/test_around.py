"""`recipes`, `inspect` and `quickstart` as commands, and the application's own options."""

from pathlib import Path

from typer.testing import CliRunner

from smtool import __version__
from smtool.cli import app
from smtool.recipe.catalog import find, names


def output(*arguments):
    ended = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_a_list_has_every_recipe_with_a_line_of_its_own():
    lines = output("recipes", "list").splitlines()
    assert [line.split()[0] for line in lines] == names()
    assert all(len(line.split()) > 2 for line in lines)


def test_a_recipe_is_shown_as_it_is_and_copied_with_its_command(tmp_path):
    text = find("sit").read_text(encoding="utf-8")
    assert output("recipes", "show", "sit") == text
    to = tmp_path / "mine.toml"
    assert output("recipes", "copy", "sit", str(to)) == f"{to}\n  train with: smtool train-dit {to}\n"
    assert to.read_text(encoding="utf-8") == text


def test_names_and_folders_are_passed_on(called):
    assert called("smtool.commands.inspect.inspection.inspect", "inspect", "runs/x") == (("runs/x",), {})
    assert called("smtool.commands.quickstart.study.quickstart", "quickstart") == ((Path("runs/quickstart"),), {})
    assert called("smtool.commands.quickstart.study.quickstart", "quickstart", "--out", "here") == ((Path("here"),), {})


def test_without_a_command_there_is_help():
    assert output("--version") == f"smtool {__version__}\n"
    for text in ("train-ae", "spectrum", "smtool quickstart"):
        assert text in output("--help")
