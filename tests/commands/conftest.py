"""Fixtures of training runs: weights of teachers, and readers of a run's files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
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


@pytest.fixture(scope="session")
def assert_same_validation(rows_of) -> Callable[[Path, Path, set[int]], None]:
    """Two runs have validated these steps, with equal scores and pictures up to rounding."""

    def check(found: Path, expected: Path, steps: set[int]) -> None:
        scores, others = ({row["step"]: row for row in rows_of(run) if "val_" in str(row)} for run in (found, expected))
        for step in steps:
            assert scores[step] == pytest.approx(others[step], rel=1e-3, abs=1e-4), step
            pictures = sorted(path.name for path in (expected / "samples").glob(f"*{step}*.png") if "spectrum" not in path.name)
            assert pictures
            for name in pictures:
                one, other = (numpy.asarray(Image.open(run / "samples" / name)).astype(int) for run in (found, expected))
                assert abs(one - other).max() <= 2, name

    return check
