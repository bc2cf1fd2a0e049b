"""No command imports a slow package before it uses it. One process starts every command and loads every recipe.

Packages that `import torch` imports do not count. The test of the first command after which a package is imported fails.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smtool.recipe.catalog import names

SLOW = (
    "torchvision", "timm", "lpips", "scipy", "matplotlib", "diffusers", "transformers", "webdataset", "skimage", "cleanfid",
    "huggingface_hub", "sympy", "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.onnx", "tensorboard",
)
WHOLE = {      # commands that run to their end
    "recipes": ["recipes", "list"],
    "inspect an autoencoder": ["inspect", "runs/ae"],
    "inspect a transformer": ["inspect", "runs/sit"],
    "inspect a transformer with labels": ["inspect", "runs/uvit"],
    "inspect prepared images": ["inspect", "data/photos"],
    "sample": ["sample", "runs/sit", "--num-images", "1", "--grid", "0", "--out", "samples-of-one"],
    "eval": ["eval", "runs/ae", "--psnr", "--ssim", "--features", "random"],
    "prepare": ["prepare", "data/photos", "--size", "16", "--out", "data/small"],
    "prepare --latents": ["prepare", "data/photos", "--latents", "runs/ae", "--out", "data/more-latents"],
}
UP_TO = {      # commands that run up to the call of a function, which may then use slow packages
    "train-ae": (["train-ae", "ae.toml"], "smtool.commands.train.training.train"),
    "train-ae --dry-run": (["train-ae", "ae.toml", "--dry-run"], "smtool.commands.train.dry_run.dry_run"),
    "train-dit": (["train-dit", "dit.toml"], "smtool.commands.train.training.train"),
    "train-dit --dry-run": (["train-dit", "dit.toml", "--dry-run"], "smtool.commands.train.dry_run.dry_run"),
    "spectrum": (["spectrum", "runs/ae"], "smtool.diffusability.spectrum.spectrum"),
    "export": (["export", "runs/ae", "--out", "exported"], "smtool.commands.export.export"),
    "race": (["race", "race/faces"], "smtool.commands.race.race.race"),
    "quickstart": (["quickstart"], "smtool.commands.quickstart.study.quickstart"),
}
INSPECTED = [name for name in names() if not name.startswith("race/")]
PROGRAM = """
import contextlib, importlib, io, json, sys
import torch
slow, whole, up_to, recipes, found = *json.loads(sys.argv[1]), {}
ours = {"torch": set(name for name in slow if name in sys.modules)}
from smtool.cli import app

def command(case, arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            app(arguments)
        except SystemExit as end:
            assert not end.code, case
    note(case)

def note(case):
    found[case] = [name for name in slow if name in sys.modules and name not in set().union(*ours.values())]
    ours[case] = set(found[case])

for case, arguments in whole.items():
    command(case, arguments)
for name in recipes:
    command(name, ["inspect", name])
for case, (arguments, function) in up_to.items():
    called = []
    module, _, name = function.rpartition(".")
    setattr(importlib.import_module(module), name, lambda *args, **named: called.append(args))
    command(case, arguments)
    assert called, case
import matplotlib.figure
note("a figure")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> dict[str, list[str]]:
    """Case -> slow packages that it was the first to import."""
    folder = tmp_path_factory.mktemp("startup") / "old"
    shutil.copytree(Path(__file__).parent / "data/before-redesign", folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SMTOOL_WEIGHTS": "", "TORCH_HOME": str(folder)}
    call = [sys.executable, "-c", PROGRAM, json.dumps([SLOW, WHOLE, UP_TO, INSPECTED])]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", [*WHOLE, *UP_TO])
def test_a_command_imports_nothing_slow(imported, case):
    assert imported[case] == []


@pytest.mark.parametrize("name", INSPECTED)
def test_a_recipe_imports_nothing_slow(imported, name):
    assert imported[name] == []


def test_an_import_is_detected(imported):
    assert "matplotlib" in imported["a figure"]
