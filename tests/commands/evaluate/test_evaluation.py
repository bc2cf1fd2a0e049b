"""Choice between the two evaluations, and inputs that neither can score."""

import os
from pathlib import Path

import pytest
import torch

from smtool.commands.evaluate import evaluation
from smtool.commands.evaluate.evaluation import evaluate, newest_run
from smtool.errors import CheckpointError, RecipeError
from smtool.evaluation.options import EvalOptions
from smtool.report.console import Console
from smtool.storage import write_tensors


@pytest.fixture
def asked_of(monkeypatch, tmp_path):
    """The evaluations that were called, by name, with their paths. The working folder is empty."""
    monkeypatch.chdir(tmp_path)
    called = []
    for name in ("reconstructions", "generations"):
        note = lambda path, options, name=name, **rest: called.append((name, str(getattr(path, "place", path))))  # noqa: E731
        monkeypatch.setattr(evaluation, f"evaluate_{name}", note)
    return called


def checkpoint(path, kind):
    write_tensors(Path(path), {"x": torch.zeros(1)}, {"kind": kind})


def asking(what, **options):
    return evaluate(what, EvalOptions(**options), console=Console(quiet=True))


def test_autoencoders_are_scored_by_reconstructions_and_others_by_samples(asked_of):
    checkpoint("runs/ae/ckpt.safetensors", "autoencoder")
    checkpoint("runs/sit/ckpt.safetensors", "diffusion")
    os.utime("runs/ae/ckpt.safetensors", (1, 1))
    Path("pictures").mkdir()
    Path("pictures/a.png").touch()
    Path("samples.npz").touch()
    for what in ("runs/ae", "runs/sit", None, "pictures", "samples.npz"):
        asking(what)
    assert asked_of == [
        ("reconstructions", "runs/ae/ckpt.safetensors"),
        ("generations", "runs/sit/ckpt.safetensors"),
        ("generations", "runs/sit/ckpt.safetensors"),      # the newest
        ("generations", "pictures"),
        ("generations", "samples.npz"),
    ]


def test_a_bad_table_path_or_a_missing_run_is_an_error_before_anything_is_opened(asked_of):
    with pytest.raises(RecipeError, match=r"--table scores\.tex: the name must end in \.md or \.csv"):
        asking(None, table_path=Path("scores.tex"))
    with pytest.raises(CheckpointError, match="There is no run in nowhere/"):
        newest_run(Path("nowhere"))
    with pytest.raises(CheckpointError, match="no such file, folder or run"):
        asking("nowhere")
    checkpoint("runs/sit/ckpt.safetensors", "diffusion")
    with pytest.raises(RecipeError, match="--data is for reconstructions"):
        asking("runs/sit", data="builtin:photos")
    assert asked_of == []
