"""Every command and the Python code of the README run as written; only trainings are shortened."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from smtool.cli import app

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = [line[2:] for block in re.findall(r"```console\n(.*?)```", TEXT, re.S) for line in block.splitlines()]
SHORT = {
    "train-ae": ("steps=6", "model.channels=[8, 8, 8]", "validation.num_images=8"),
    "train-dit": ("steps=4", "model.size=custom", "model.depth=2", "model.width=32", "model.heads=2", "validation.num_images=8"),
    "race": (
        "judge.num_images=10", "judge.predictors=false", "turn=4",
        'transformer.changes=["steps=4","model.width=32","model.depth=2","validation.num_images=8","evaluate_every=4"]',
    ),
}


def _run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = command.split()[1:]
    for change in SHORT.get(arguments[0], ()):
        arguments += ["--set", change]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_HOME": str(folder / "no-weights"), "SMTOOL_WEIGHTS": ""}
    call = [sys.executable, "-m", "smtool", *arguments]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, env=environment, timeout=600)


def test_the_readme_has_the_lines_that_must_work():
    assert {"smtool train-ae recipes/dsm.toml", "smtool eval --fid", "smtool quickstart"} <= set(COMMANDS)
    assert any(re.fullmatch(r"smtool spectrum \S*ckpt\.safetensors --plot", command) for command in COMMANDS)


@pytest.mark.slow
def test_commands_run_in_the_order_in_which_they_are_written(tmp_path):
    for command in COMMANDS:
        if command in ("pip install .", "smtool quickstart"):      # set-up; the quickstart is tested elsewhere
            continue
        done = _run(command, tmp_path)
        assert "Traceback" not in done.stderr
        if command == "smtool eval --fid" and done.returncode == 4:      # no weights and no network
            assert "nception" in done.stderr
            continue
        assert done.returncode == 0, f"{command}: {done.stderr}"
    python = re.search(r"```python\n(.*?)```", TEXT, re.S)
    script = subprocess.run([sys.executable, "-c", python[1]], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert script.returncode == 0, script.stderr


PAGES = [README, *sorted(README.parent.glob("docs/**/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_options_exist(page):
    """Options in code blocks, also on lines continued by a backslash, and between backticks."""
    commands = typer.main.get_command(app).commands
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"(?:^|`|; |&& |\$ |-m )smtool ([a-z-]+)([^`\n;&#]*)", text, re.M)
    assert lines or page != README
    for name, rest in lines:
        if name in commands and name != "recipes":
            options = {option for parameter in commands[name].params for option in parameter.opts}
            assert set(re.findall(r"(?<=\s)--[a-z0-9-]+", rest)) <= options, f"smtool {name}{rest}"


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)", TEXT))
def test_link_targets_exist(link):
    assert (README.parent / link).exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:smtool|recipes|benchmarks)/[\w./*-]*)`", TEXT))))
def test_named_files_exist(path):
    assert list(README.parent.glob(path.rstrip("/"))), path
