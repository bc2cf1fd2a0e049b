"""The generated reference: current, complete, and true to what the commands accept."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from smtool.cli import app
from smtool.recipe import TrainAE, TrainDiT
from smtool.recipe.race import Race

ROOT = Path(__file__).parent.parent.parent
RECIPES = (ROOT / "docs/reference/recipes.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_pages_are_what_the_generator_writes():
    code = "import sys, recipe_pages, command_pages\n"
    code += "sys.stdout.write(recipe_pages.recipes_page() + '\\0' + command_pages.commands_page())"
    call = [sys.executable, "-c", code]
    written = subprocess.run(call, capture_output=True, text=True, check=True, cwd=ROOT / "docs" / "generate").stdout
    assert written == f"{RECIPES}\0{COMMANDS}", "run `make docs` and commit docs/reference"


def _keys(schema, definitions, found):
    """Every property of a JSON schema, as pydantic itself states it, wherever it lies."""
    for name in re.findall(r"#/\$defs/(\w+)", str(schema)):
        if name not in found:
            found[name] = list(definitions[name].get("properties", {}))
            _keys(definitions[name], definitions, found)
    return found


@pytest.mark.parametrize("model", [TrainAE, TrainDiT, Race], ids=lambda model: model.__name__)
def test_every_key_of_every_table_has_its_row(model: type[BaseModel]):
    schema = model.model_json_schema()
    reached = _keys(schema["properties"], schema.get("$defs", {}), {model.__name__: list(schema["properties"])})
    assert len(reached) >= 5
    tables = {table for table in reached if reached[table]}
    for table in tables:
        for key in reached[table]:
            assert f"| `{key}` |" in RECIPES or f"[{key}" in RECIPES or f".{key}" in RECIPES, f"{table}.{key}"


def test_every_row_says_what_its_key_does():
    rows = [line for line in RECIPES.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert [line for line in rows if line.endswith("|  |")] == []


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))
def test_every_option_of_every_command_has_its_row(name):
    command = typer.main.get_command(app).commands[name]
    inside = getattr(command, "commands", {name: command})
    for part, one in inside.items():
        title = f"## smtool {name}" if part == name and one is command else f"## smtool {name} {part}"
        section = COMMANDS.split(f"{title}\n")[1].split("\n## ")[0]
        for parameter in one.params:
            if parameter.name != "help":
                flags = [flag for flag in parameter.opts if flag.startswith("--")]
                assert all(f"`{flag}`" in section or f"`{flag}," in section for flag in flags), (title, flags)
