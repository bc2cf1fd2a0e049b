"""The generated reference: current, complete, and true to what the commands accept."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from smtool.cli import app
from smtool.recipe import TrainAE, TrainDiT
from smtool.recipe.race import Race

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "docs/reference"
RECIPES = (ROOT / "docs/reference/recipes.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generated():
    """What the generator would write, and what it says of missing docstrings."""
    code = (
        f"import json, sys; sys.path.insert(0, {str(ROOT / 'docs/generate')!r})\n"
        "import runpy\n"
        f"pages = runpy.run_path({str(ROOT / 'docs/generate/__main__.py')!r})['PAGES']\n"
        "from python_pages import undocumented\n"
        "json.dump({'pages': {name: page() for name, page in pages.items()}, 'undocumented': undocumented()}, sys.stdout)"
    )
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout)


@pytest.mark.slow
def test_the_pages_are_what_the_generator_writes(generated):
    stale = [name for name, text in generated["pages"].items() if (REFERENCE / name).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make docs` and commit docs/reference"


def _tables(schema, definitions, path=""):
    """(path of a table, its keys) for every object of a JSON schema, as pydantic itself states it."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from _tables(part, definitions, path)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _tables(schema["additionalProperties"], definitions, f"{path}.NAME")
    if "properties" in schema:
        yield path, schema["properties"]
        for key, inner in schema["properties"].items():
            yield from _tables(inner, definitions, f"{path}.{key}" if path else key)


@pytest.mark.parametrize("model", [TrainAE, TrainDiT, Race], ids=lambda model: model.__name__)
def test_every_key_of_every_table_has_its_row(model: type[BaseModel]):
    command = {TrainAE: "train-ae", TrainDiT: "train-dit", Race: "race"}[model]
    schema = model.model_json_schema()
    tables = list(_tables(schema, schema["$defs"]))
    assert len(tables) >= 6
    for path, keys in tables:
        title = f"### {command}: `[{path}]`" if path else f"### {command}: top level"
        kind = keys.get("kind", {}).get("const")
        title += f', `kind = "{kind}"`' if kind else ""
        assert f"{title}\n" in RECIPES, title
        section = RECIPES.split(f"{title}\n")[1].split("\n##")[0]
        assert [key for key in keys if f"\n| `{key}` |" not in section] == [], title


def test_the_examples_of_recipes_are_toml():
    examples = re.findall(r"```toml[^\n]*\n(.*?)```", RECIPES, re.S)
    assert len(examples) > 25
    assert all(tomllib.loads(example) for example in examples)


@pytest.mark.slow
def test_everything_exported_has_a_docstring(generated):
    """What has none is left out of the site."""
    assert generated["undocumented"] == []


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
                assert all(re.search(rf"[` ]{flag}[`,]", section) for flag in flags), (title, flags)
