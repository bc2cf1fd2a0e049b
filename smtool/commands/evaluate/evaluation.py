"""`smtool eval`: score an autoencoder's reconstructions of validation images, or generated images."""

from dataclasses import replace
from pathlib import Path

from smtool.checkpoints.tensor_file import PICKLED
from smtool.commands.evaluate.generations import evaluate_generations
from smtool.commands.evaluate.reconstructions import evaluate_reconstructions
from smtool.commands.evaluate.record import check_table_path
from smtool.commands.evaluate.result import AnyEvaluation
from smtool.data.images.folders import folder_images
from smtool.errors import CheckpointError, RecipeError
from smtool.evaluation.options import EvalOptions
from smtool.inference.sampling import SAMPLING_FILE
from smtool.report.console import Console
from smtool.tokenizers import Found, identify
from smtool.training.distributed import joined

_CHECKPOINTS = {".safetensors", *PICKLED} - {".tar"}
"""Suffixes of files that hold tensors. A .tar is taken as an archive of images."""


def evaluate(what: str | None, options: EvalOptions, *, console: Console) -> AnyEvaluation | None:
    """Score an autoencoder, a transformer or images in files, and print a table.

    what: path or name; None for the run with the newest ckpt.safetensors. An autoencoder's reconstructions are scored against
    their inputs, by default with PSNR, SSIM and fd_random. For a transformer's samples and images in a folder, archive or npz,
    see evaluate_generations. Under torchrun the ranks share the passes over images; all but the first return None.
    """
    check_table_path(options.table_path)
    found = _found(what)
    with joined(options.device) as ranks:
        options = replace(options, device=ranks.device)
        if isinstance(found, Found) and found.kind != "diffusion":
            return evaluate_reconstructions(found, options, ranks=ranks, console=console)
        if options.data is not None:
            raise RecipeError("--data is for reconstructions, but samples are scored.", hint="Compare with --reference.")
        path = Path(found.place) if isinstance(found, Found) else found
        return evaluate_generations(path, options, ranks=ranks, console=console)


def newest_run(root: Path = Path("runs")) -> Path:
    """The most recently written ckpt.safetensors under `root`. Raises CheckpointError if there is none."""
    found = sorted(root.rglob("ckpt.safetensors"), key=lambda path: (path.stat().st_mtime, str(path)))
    if not found:
        raise CheckpointError(
            f"There is no run in {root}/ to evaluate.",
            hint="Train one with `smtool train-ae recipes/dsm.toml`, or pass a checkpoint: smtool eval CKPT",
        )
    return found[-1]


def _found(what: str | None) -> Found | Path:
    """The tokenizer or transformer of that name; or the path, if it holds images."""
    if what is None:
        return identify(newest_run())
    path = Path(what)
    if path.is_file() and path.suffix.lower() not in _CHECKPOINTS:
        return path
    try:
        return identify(what)      # also finds runs of transformers
    except CheckpointError:
        if path.is_dir() and ((path / SAMPLING_FILE).is_file() or any(path.glob("*.tar")) or folder_images(path)[0]):
            return path
        raise
