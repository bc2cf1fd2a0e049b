"""Predicted beside measured steps of small recipes on one thread of this machine's CPU, as CPU time."""

import itertools
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from benchmarks.costs.page import PAGE, MarkedTable
from smtool.commands.train.predicted_time import Predictor
from smtool.commands.train.run import Run
from smtool.commands.train.run_autoencoder import autoencoder_run
from smtool.commands.train.run_diffusion import diffusion_run
from smtool.commands.train.run_folder import RunFolder
from smtool.cost.cpu import measure_cpu
from smtool.recipe import TrainAE, TrainDiT, load
from smtool.training.distributed import Ranks
from smtool.training.loop import optimize
from smtool.training.memory import keep_freed_memory

ROOT = Path(__file__).parents[2]
_GAN = "discriminator={start=0,channels=16,num_layers=2}"
_LATENTS = (f"latents.autoencoder={ROOT}/data/specimen/autoencoders/plain.safetensors", "latents.online=true")
CASES: dict[str, tuple[str, type[Any], Any, tuple[str, ...]]] = {
    "SD-VAE, `recipes/sd-vae.toml`": ("sd-vae", TrainAE, autoencoder_run, ()),
    "the same with a PatchGAN, updated in turns": ("sd-vae", TrainAE, autoencoder_run, (_GAN,)),
    "ESM, `recipes/esm.toml`": ("esm", TrainAE, autoencoder_run, ()),
    "SiT, `recipes/sit.toml`": ("sit", TrainDiT, diffusion_run, _LATENTS),
    "U-ViT, `recipes/uvit.toml`": ("uvit", TrainDiT, diffusion_run, _LATENTS),
}
"""Name -> recipe, its kind, its assembly, changes."""
_WARMUP, _REPEATS = 2, 8


def write(page: Path = PAGE) -> None:
    """Measure all cases in this process. Data are read before the clock starts."""
    torch.set_num_threads(1)
    keep_freed_memory()
    cpu, table = measure_cpu(None, 1, time.process_time), MarkedTable(page, "errors")
    print(cpu.title)
    for name, (recipe, kind, assemble, changes) in CASES.items():
        run = assemble(load(recipe, kind, ["steps=1000", *changes]), RunFolder(Path("/nonexistent")), Ranks(0, 1, "cpu"), None)
        predicted = Predictor(cpu, "").seconds(run, range(_WARMUP, _WARMUP + 2))
        assert predicted is not None
        seconds = measured(run)
        cells = [name, f"{predicted * 1e3:.0f} ms", f"{seconds * 1e3:.0f} ms", f"{100 * (predicted / seconds - 1):+.0f} %"]
        table.put(cells, order=list(CASES))


def measured(run: Run) -> float:
    """CPU seconds of a step on one batch, a mean of even and odd steps, of each the fastest."""
    with closing(run.batches(0)) as batches:
        batch = next(batches)
    steps = optimize(run.training, itertools.repeat(batch), first_step=0)
    seconds: list[float] = []
    for _ in range(_WARMUP + _REPEATS):
        began = time.process_time()
        next(steps)
        seconds.append(time.process_time() - began)
    return (min(seconds[_WARMUP::2]) + min(seconds[_WARMUP + 1 :: 2])) / 2
