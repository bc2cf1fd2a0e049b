"""The parity tests run only with `make parity`: without SMTOOL_PARITY in the environment nothing here is collected."""

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ASKED = "SMTOOL_PARITY" in os.environ
collect_ignore_glob = [] if ASKED else ["*.py"]
if ASKED:
    sys.path.insert(0, str(HERE))  # for the packages `given`, `recorder` and `replay`


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "single_precision: compares rounding in float32")


@pytest.fixture(autouse=True)
def float64(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compute everything in double precision instead of single precision (see `given.float64`)."""
    from given.float64 import everywhere

    with nullcontext() if request.node.get_closest_marker("single_precision") else everywhere():
        yield
