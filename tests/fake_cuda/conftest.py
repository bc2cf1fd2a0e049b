"""The fixture `card`, skipped where there can be no fake GPU, and the smallest networks that can fail."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torchvision.models import squeezenet1_1

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package `fake_cuda`


@pytest.fixture
def card() -> Iterator:
    """A fake GPU; `card.waits` counts what the host waits for."""
    import fake_cuda

    if (reason := fake_cuda.why_not()) is not None:
        pytest.skip(reason)
    from fake_cuda.card import card

    with card() as made:
        yield made


@pytest.fixture(scope="session")
def squeezenet_weights(tmp_path_factory) -> Path:
    """A folder with random weights of SqueezeNet, which is a small teacher and trunk of LPIPS."""
    folder = tmp_path_factory.mktemp("squeezenet")
    with torch.random.fork_rng():
        state = {name: value.half() for name, value in squeezenet1_1(weights=None).state_dict().items()}
    torch.save(state, folder / "squeezenet1_1_torchvision_fp16.pth")
    return folder
