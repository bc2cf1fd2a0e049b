"""The commands that are killed, at nano size: what each needs, what it runs and which of its files must be equal."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from smtool.commands.evaluate.evaluation import evaluate
from smtool.commands.prepare.images import prepare
from smtool.commands.prepare.latents import prepare_latents
from smtool.commands.race.jobs import Place
from smtool.commands.race.race import race
from smtool.commands.race.workers import outcome
from smtool.commands.sample.samples import sample_images
from smtool.commands.train import training
from smtool.commands.train.run_autoencoder import autoencoder_run
from smtool.commands.train.run_diffusion import diffusion_run
from smtool.evaluation.options import EvalOptions
from smtool.recipe import TrainAE, TrainDiT, load
from smtool.recipe.race import load_race
from smtool.report.console import Console

SIDE = 16
AUTOENCODER = f"""
steps = 6
log_every = 1
evaluate_every = 3
save_every = 2
keep_last = 1
data = {{ train = "data", image_size = {SIDE}, batch = 4, workers = 1 }}
model = {{ downsample = 4, latent_channels = 2, channels = [4, 4, 4], norm_groups = 2, blocks_per_level = 1 }}
optimizer = {{ lr = 1e-3, warmup = 2 }}
ema = {{ decay = 0.9 }}
discriminator = {{ num_layers = 1, channels = 4, start = 1 }}
regularizers = {{ dsm = {{ block = "fit" }}, kl = {{ weight = 1e-6 }} }}
validation = {{ num_images = 4, grid = 2 }}
tracking = {{ tensorboard = false }}
"""
TRANSFORMER = """
steps = 6
log_every = 1
evaluate_every = 3
save_every = 2
keep_last = 1
latents = { autoencoder = "ae", dtype = "fp32" }
data = { batch = 4, workers = 1 }
model = { kind = "sit", size = "custom", depth = 1, width = 16, heads = 2, patch = 2 }
labels = {}
optimizer = { lr = 1e-3, warmup = 2 }
ema = { decay = 0.9 }
sampler = { kind = "euler", steps = 2 }
validation = { num_images = 4, grid = 2 }
tracking = { tensorboard = false }
"""
RACE = f"""
seeds = [0]
turn = 2
judge = {{ num_images = 10, predictors = false }}
data = {{ train = "data", image_size = {SIDE} }}
autoencoders = {{ changes = ["steps=2", "evaluate_every=2"] }}
transformer = {{ recipe = "dit.toml", changes = ["steps=4", "labels=", "evaluate_every=4"] }}
racers = {{ one = {{ recipe = "ae.toml" }}, two = {{ recipe = "ae.toml", changes = ["regularizers.dsm="] }} }}
"""
_VOLATILE = ("log.txt", "environment.json", "report.html", "costs.json")
_TIMES = {"images_per_second", "waiting_share"}


@dataclass(frozen=True)
class Scenario:
    """needs: of the shared inputs; out: names of what is compared; run: in the working folder; command: the same, cold.

    own_input: the inputs may be damaged, so they are copied and not linked.
    """

    needs: tuple[str, ...]
    out: tuple[str, ...]
    run: Callable[[], object]
    command: tuple[str, ...]


class Here:
    """A race's worker in this process."""

    def do(self, job: Any) -> Any:
        return outcome(job, Place("cpu", None))

    def stop(self) -> None:
        pass

    def end(self) -> None:
        pass


def _console() -> Console:
    return Console(file=io.StringIO())


def _prepare(source: str) -> Callable[[], object]:
    return lambda: prepare(source, out=Path("prepared"), size=8, workers=1, images_per_shard=4)


def _latents() -> object:
    return prepare_latents("ae", data="data", out=Path("latents"), batch=4, workers=1, images_per_shard=4)


def _train_ae() -> object:
    return training.train(load("ae.toml", TrainAE), autoencoder_run, console=_console(), out=Path("run"))


def _train_dit() -> object:
    return training.train(load("dit.toml", TrainDiT), diffusion_run, console=_console(), out=Path("run"))


def _sample(kind: Any) -> Callable[[], object]:
    return lambda: sample_images("sit", out=Path("drawn"), num_images=40, batch=8, kind=kind, grid=4, console=_console())


def _eval() -> object:
    options = EvalOptions(
        features=("random",), scores=("kid",), num_images=12, json_path=Path("scores.json"), table_path=Path("scores.csv")
    )
    return evaluate("sit", options, console=_console())


def _race() -> object:
    return race(load_race("race.toml"), out=Path("race"), workers=[Here()], console=_console())  # type: ignore[arg-type]


_AE = ("train-ae", "ae.toml", "--out", "run", "--device", "cpu")
_DRAW = ("sample", "sit", "--out", "drawn", "--num-images", "40", "--batch", "8", "--grid", "4", "--device", "cpu", "--format")
SCENARIOS: dict[str, Scenario] = {
    "prepare": Scenario(
        ("pictures",), ("prepared",), _prepare("pictures"),
        ("prepare", "pictures", "--size", "8", "--out", "prepared", "--workers", "1"),
    ),
    "prepare a tar.gz": Scenario(
        ("pictures.tar.gz",), ("prepared",), _prepare("pictures.tar.gz"),
        ("prepare", "pictures.tar.gz", "--size", "8", "--out", "prepared", "--workers", "2"),
    ),
    "prepare --latents": Scenario(
        ("data", "ae"), ("latents",), _latents, ("prepare", "data", "--latents", "ae", "--out", "latents", "--device", "cpu")
    ),
    "train-ae": Scenario(("data", "ae.toml"), ("run",), _train_ae, _AE),
    "train-dit": Scenario(
        ("data", "ae", "dit.toml"), ("run", "data/latents"), _train_dit,
        ("train-dit", "dit.toml", "--out", "run", "--device", "cpu"),
    ),
    "sample to png": Scenario(("sit",), ("drawn",), _sample("png"), (*_DRAW, "png")),
    "sample to npz": Scenario(("sit",), ("drawn",), _sample("npz"), (*_DRAW, "npz")),
    "sample to shards": Scenario(("sit",), ("drawn",), _sample("shards"), (*_DRAW, "shards")),
    "eval": Scenario(
        ("data", "sit"), ("scores.json", "scores.csv"), _eval,
        ("eval", "sit", "--features", "random", "--kid", "--num-images", "12", "--json", "scores.json", "--table", "scores.csv",
         "--device", "cpu"),
    ),
    "race": Scenario(
        ("data", "ae.toml", "dit.toml", "race.toml"), ("race",), _race,
        ("race", "race.toml", "--out", "race", "--device", "cpu", "--jobs", "1"),
    ),
}  # fmt: skip


def build(folder: Path) -> None:
    """Write the inputs of all scenarios: pictures, data (prepared), recipes, and the finished runs ae and sit."""
    generator = np.random.default_rng(0)
    for number in range(18):
        place = folder / "pictures" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (18, 20, 3), dtype=np.uint8)).save(place / f"{number:02d}.png")
    with tarfile.open(folder / "pictures.tar.gz", "w:gz") as tar:
        tar.add(folder / "pictures", "pictures")
    for name, text in (("ae.toml", AUTOENCODER), ("dit.toml", TRANSFORMER), ("race.toml", RACE)):
        (folder / name).write_text(text)
    os.chdir(folder)
    prepare("pictures", out=folder / "data", size=SIDE, workers=1, val_fraction=0.2, images_per_shard=8)
    _train_ae()
    os.rename("run", "ae")
    _train_dit()
    os.rename("run", "sit")
    shutil.rmtree("data/latents")


def place(inputs: Path, scenario: Scenario, folder: Path) -> None:
    """An empty working folder with copies of what the scenario needs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in scenario.needs:
        source = inputs / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)


def contents(folder: Path, scenario: Scenario) -> dict[str, str]:
    """Digest of each file of the results by path; of logs and scores, without times."""
    found = {}
    for name in scenario.out:
        top = folder / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and path.name not in _VOLATILE:
                found[str(path.relative_to(folder))] = _digest(path)
    return found


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in data.splitlines()]
        data = json.dumps([{key: value for key, value in row.items() if key not in _TIMES} for row in rows]).encode()
    elif path.name == "race.json":
        data = json.dumps({key: value for key, value in json.loads(data).items() if key != "costs"}).encode()
    return sha256(data).hexdigest()
