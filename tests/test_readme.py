"""Every command and the Python code of the README run as written; only trainings are shortened, and fewer images measured.

tests/docs/test_site.py checks that the commands of all pages can be typed and that links lead somewhere.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import warm_process

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = re.findall(r"(?:^\$ |^\| `.*\| `)(pip [^`\n]+|smtool [^`\n]+)", TEXT, re.M)
"""Of the console blocks, and of the table of commands."""
SHORT = {
    "train-ae": ("steps=6", "model.channels=[8, 8, 8]", "validation.num_images=8"),
    "train-dit": (
        "steps=4", "data.train=builtin:photos?train=64&val=16", "model.size=custom", "model.depth=2", "model.width=32",
        "model.heads=2", "validation.num_images=8",
    ),
}


def _run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = shlex.split(command)[1:]
    if arguments[0] == "spectrum":
        arguments = [word for word in arguments if word != "--plot" or len(arguments) == 3]      # one page of plots is enough
        arguments += ["--num-images", "16"]
    for change in SHORT.get(arguments[0], ()):
        arguments += ["--set", change]
    environment = {**os.environ, "TORCH_HOME": str(folder / "no-weights"), "SMTOOL_WEIGHTS": ""}
    return warm_process.run(*arguments, cwd=folder, env=environment, timeout=600)


def test_the_readme_has_the_lines_that_must_work():
    assert {"smtool train-ae recipes/dsm.toml", "smtool eval --fid", "smtool quickstart"} <= set(COMMANDS)
    assert any(re.fullmatch(r"smtool spectrum \S*ckpt\.safetensors --plot", command) for command in COMMANDS)


@pytest.mark.slow
def test_commands_run_in_the_order_in_which_they_are_written(tmp_path):
    own, library = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    (tmp_path / "my_losses.py").write_text(own)
    for command in COMMANDS:
        if command in ("pip install .", "smtool quickstart"):      # set-up; the quickstart is tested elsewhere
            continue
        done = _run(command, tmp_path)
        assert "Traceback" not in done.stderr
        if command == "smtool eval --fid" and done.returncode == 4:      # no weights and no network
            assert "nception" in done.stderr
            continue
        assert done.returncode == 0, f"{command}: {done.stderr}"
    script = subprocess.run([sys.executable, "-c", library], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert script.returncode == 0, script.stderr


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:smtool|recipes|benchmarks)/[\w./*-]*)`", TEXT))))
def test_named_files_exist(path):
    assert list(README.parent.glob(path.rstrip("/"))), path
