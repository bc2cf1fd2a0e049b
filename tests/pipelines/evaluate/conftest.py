"""What the tests of evaluation share: an oracle for Frechet distances, a screen to read, and a machine without network."""

import io

import numpy as np
import pytest
import scipy.linalg

from smtool.report.console import Console


@pytest.fixture
def frechet():
    """Frechet distance of features (N, D) and (M, D), numpy, by scipy's root of a matrix."""

    def distance(x, y):
        a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        shift = x.mean(0) - y.mean(0)
        return shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b).real)

    return distance


@pytest.fixture
def screen():
    """A console, and the text that it has shown."""
    file = io.StringIO()
    return Console(file=file), file.getvalue


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No weights on this machine, and none to be had."""

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
    monkeypatch.delenv("SMTOOL_WEIGHTS", raising=False)
