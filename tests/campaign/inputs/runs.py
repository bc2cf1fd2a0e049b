"""Mutated run folders: resumed, described, or their page written anew."""

import io
import json
import shutil
import tomllib
from pathlib import Path
from random import Random

import tomli_w

from campaign.mutation import mutated_bytes, mutated_value
from campaign.sandbox import Case, Sandbox
from smtool.commands.inspect.inspection import describe
from smtool.commands.sample.samples import sample_images
from smtool.commands.train import training
from smtool.commands.train.report import write_report
from smtool.commands.train.run_autoencoder import autoencoder_run
from smtool.commands.train.run_diffusion import diffusion_run
from smtool.commands.train.run_folder import RunFolder
from smtool.recipe import TrainAE, TrainDiT, load
from smtool.report.console import Console

_TEXTS = (
    "metrics.jsonl",
    "metrics.jsonl",
    "resolved.toml",
    "environment.json",
    "checkpoints/00000004/state.json",
    "DONE",
    "recipe.toml",
)
_TENSORS = ("ckpt.safetensors", *(f"checkpoints/00000004/{name}.safetensors" for name in ("model", "ema", "optimizer")))


def case(originals: Path, rng: Random, box: Sandbox) -> Case:
    name = rng.choice(("ae", "ae", "sit"))
    run = box.out / "runs" / name
    shutil.copytree(originals / "old/runs" / name, run)
    what = rng.choice((_text, _text, _text, _tensors, _lost))(run, rng)
    use = rng.choice((*("resume", "sample", "describe") * 5, "page"))  # a page takes a second of drawing
    (box.out / "data").symlink_to(originals / "old/data")
    return Case(f"{name}, {use}: {what}", lambda: _use(originals, run, name, use))


def _text(run: Path, rng: Random) -> str:
    name = rng.choice([name for name in _TEXTS if (run / name).is_file()])
    data, path = (run / name).read_bytes(), run / name
    if rng.random() < 0.3:
        what, data = mutated_bytes(data, rng)
    elif name.endswith(".toml"):
        what, values = mutated_value(tomllib.loads(data.decode()), rng)
        try:
            data = tomli_w.dumps(values).encode(errors="surrogateescape")
        except (TypeError, AttributeError, ValueError, RecursionError):
            data = b"x = ["
    elif name.endswith(".jsonl"):
        what, rows = mutated_value([json.loads(line) for line in data.splitlines()], rng)
        data = "".join(json.dumps(row) + "\n" for row in (rows if isinstance(rows, list) else [rows])).encode()
    elif name.endswith(".json"):
        what, value = mutated_value(json.loads(data), rng)
        data = json.dumps(value).encode()
    else:
        what, data = mutated_bytes(data, rng)
    path.write_bytes(data)
    return f"{name}: {what}"


def _tensors(run: Path, rng: Random) -> str:
    name = rng.choice(_TENSORS)
    what, data = mutated_bytes((run / name).read_bytes(), rng)
    (run / name).write_bytes(data)
    return f"{name}: {what}"


def _lost(run: Path, rng: Random) -> str:
    name = rng.choice(sorted({*_TEXTS, *_TENSORS, "samples", "checkpoints"}))
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if rng.random() < 0.3:
        path.mkdir(exist_ok=True, parents=True)
        return f"{name} is an empty folder"
    return f"{name} lost"


def _use(originals: Path, run: Path, name: str, use: str) -> None:
    console = Console(file=io.StringIO())
    if use == "describe":
        describe(str(run))
    elif use == "page":
        write_report(RunFolder(run))
    elif use == "sample" and name == "sit":
        sample_images(str(run), out=Path("drawn"), num_images=1, grid=0, console=console)
    else:
        recipe = originals / "old" / ("ae.toml" if name == "ae" else "dit.toml")
        more = ["steps=6", "evaluate_every=99"]
        if name == "ae":
            training.train(load(str(recipe), TrainAE, more), autoencoder_run, console=console, out=run, pause_at=5)
        else:
            shutil.copytree(originals / "old/runs/ae", "runs/ae", dirs_exist_ok=True)
            training.train(load(str(recipe), TrainDiT, more), diffusion_run, console=console, out=run, pause_at=5)
