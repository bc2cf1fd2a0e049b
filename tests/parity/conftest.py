"""The parity tier runs by `make parity` only: without SMTOOL_PARITY in the environment nothing here is collected."""

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
    config.addinivalue_line("markers", "single_precision: what is compared is a rounding in float32")


@pytest.fixture(autouse=True)
def float64(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything that a test computes in single precision is computed in double instead (see `given.float64`)."""
    from given.float64 import everywhere

    with nullcontext() if request.node.get_closest_marker("single_precision") else everywhere():
        yield
