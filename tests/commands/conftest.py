"""Fixtures of training runs: weights of teachers, and readers of a run's files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

DINOV2_S = "vit_small_patch14_dinov2.lvd142m"


@pytest.fixture(scope="session")
def state_of() -> Callable[[Path], dict[str, torch.Tensor]]:
    """Run folder -> the tensors of its newest checkpoint and of ckpt.safetensors."""

    def read(run: Path) -> dict[str, torch.Tensor]:
        newest = sorted((run / "checkpoints").iterdir())[-1]
        parts = [(name, newest / f"{name}.safetensors") for name in ("model", "ema", "optimizer")]
        files = [*parts, ("ckpt", run / "ckpt.safetensors")]
        return {f"{name}/{key}": value for name, path in files for key, value in load_file(path).items()}

    return read


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, float]]]:
    """Run folder -> the rows of its log."""
    return lambda run: [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
