"""Shared by all tests: few threads, so that parallel workers do not fight, and a seeded numpy generator."""

import os

import numpy as np
import pytest
import torch

torch.set_num_threads(max(1, (os.cpu_count() or 2) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "2"))))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
