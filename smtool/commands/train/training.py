"""`smtool train-ae` and `train-dit`: train a run from its newest checkpoint to its end."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from smtool.commands.train.interrupts import stop_request
from smtool.commands.train.memory_advice import memory_advice
from smtool.commands.train.report import write_report
from smtool.commands.train.run import Run
from smtool.commands.train.run_autoencoder import autoencoder_run
from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.watch import Watch
from smtool.devices import gpu_algorithms, is_out_of_memory, reason_of
from smtool.errors import OutOfMemory, TrainingError
from smtool.recipe import Recipe
from smtool.report.console import Console
from smtool.training.distributed import Ranks, joined, wait_for_all
from smtool.training.memory import keep_freed_memory

Assemble = Callable[[Recipe[Any], RunFolder, Ranks, Path | None], Run]


def train(
    recipe: Recipe[Any],
    assemble: Assemble = autoencoder_run,
    *,
    console: Console,
    out: Path | None = None,
    fresh: bool = False,
    device: str = "cpu",
    weights_dir: Path | None = None,
    pause_at: int | None = None,
) -> Path:
    """Train to the recipe's last step, from the newest checkpoint in `out` (default runs/NAME). Returns the folder.

    fresh: delete the run in the folder first. pause_at: an earlier step at which to save and return, so that several runs can
    advance in turns; learning rates still follow the recipe's steps.
    Raises RecipeError if the run was started with another recipe, TrainingError if a loss is not finite, and Interrupted after a
    stop request, when the run is saved.
    """
    folder = RunFolder(out or Path("runs") / recipe.name)
    if device == "cpu":
        keep_freed_memory()
    with joined(device) as ranks, algorithms(recipe, ranks):
        if folder.exists and not fresh:
            folder.check_same(recipe)
        wait_for_all()
        if ranks.first and fresh:
            folder.clear()
        wait_for_all()
        run = assemble(recipe, folder, ranks, weights_dir)
        steps = run.tables.steps
        if run.first_step > steps or (run.first_step == steps and folder.is_done and folder.ckpt.is_file()):
            longer = "" if run.tables.optimizer.schedule == "cosine" else "--set steps=N continues it, "
            console.print(f"{folder.path} is finished ({run.first_step} steps). {longer}--fresh restarts it.")
            return folder.path
        if pause_at is not None and pause_at <= run.first_step < steps:
            return folder.path
        wait_for_all()
        try:
            with stop_request() as stop:      # not earlier: before the first step there is nothing to save
                Watch(run, console, stop, pause_at).run_training()
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemory(f"out of memory ({reason_of(error)}).", hint=memory_advice(run)) from error
            if not isinstance(error, TrainingError):
                raise
            if ranks.first:
                folder.end("FAILED", error.message)
                write_report(folder)
            raise
    return folder.path


def algorithms(recipe: Recipe[Any], ranks: Ranks) -> AbstractContextManager[None]:
    """The algorithms of a GPU while a recipe trains."""
    tables = recipe.tables
    return gpu_algorithms(ranks.device, deterministic=tables.deterministic, same_shapes=tables.same_shapes)
