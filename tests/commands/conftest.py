"""What the tests of training runs share: weights of teachers, and reading what a run has left."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import squeezenet1_1

DINOV2_S = "vit_small_patch14_dinov2.lvd142m"


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """Random weights of teachers under the names and in the shapes that real ones have."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(DINOV2_S, num_classes=0).state_dict(), folder / f"{DINOV2_S}.safetensors")
        save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), folder / "resnet10t.safetensors")
        state = {name: value.half() for name, value in squeezenet1_1(weights=None).state_dict().items()}
        torch.save(state, folder / "squeezenet1_1_torchvision_fp16.pth")
    return folder


@pytest.fixture(scope="session")
def state_of() -> Callable[[Path], dict[str, torch.Tensor]]:
    """Run folder -> the tensors of its newest checkpoint and of the file to share."""

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
