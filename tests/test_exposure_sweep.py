"""The sweep of exposure bias: paired differences, band power by scipy, and the whole study on a tiny run."""

import json
import math

import numpy as np
import pytest
import scipy.fft
import torch

from benchmarks.exposure_sweep.__main__ import band_power, main
from benchmarks.exposure_sweep.rows import Resampled, Row, change
from smtool.metrics.frechet import Gaussian


def test_differences_are_paired(frechet):
    x, y = torch.randn(60, 5), torch.randn(70, 5)
    mine, same = (Resampled(x, Gaussian.of(y)) for _ in range(2))
    assert mine.distance == pytest.approx(frechet(x.numpy(), y.numpy()), rel=1e-5)
    assert mine.error > 0
    assert change(mine, same).error == 0.0
    shifted = Resampled(x + 0.01, Gaussian.of(y))
    assert 0 < change(shifted, mine).error < 0.2 * math.hypot(shifted.error, mine.error)


def test_band_power_is_that_of_scipys_dct():
    """A band is a quarter of the axis from frequency 0 to the highest one; the corners are in the last."""
    x = torch.randn(4, 2, 8, 8)
    power = np.square(scipy.fft.dctn(x.double().numpy(), axes=(2, 3), norm="ortho")).mean((0, 1))
    bands = [[], [], [], []]
    for u in range(8):
        for v in range(8):
            bands[min(3, int(math.hypot(u, v) // 2))].append(power[u, v])
    assert band_power(x).tolist() == pytest.approx([np.mean(band) for band in bands], rel=1e-5)


def test_a_sweep_keeps_what_is_done(finished, studio, monkeypatch):
    out = studio.folder / "exposure.json"

    def run(*more: str) -> list[Row]:
        options = ["--data", "data/classes", "--features", "random", "--num-images", "12", "--reference", "16", "--steps", "3"]
        monkeypatch.setattr("sys.argv", ["sweep", str(finished), *options, "--out", str(out), *more])
        main()
        return [Row.of(row) for row in json.loads(out.read_text())]

    first = run()
    rows = run("--scales", "0.5", "--figure", str(studio.folder / "exposure.png"))
    assert rows[:1] == first and [row.scale for row in rows] == [1.0, 0.5]
    assert first[0].from_plain == first[0].from_first == rows[1].from_plain.__class__(0.0, 0.0)
    assert rows[1].from_plain.value == pytest.approx(rows[1].distance - rows[0].distance)
    assert (studio.folder / "exposure.png").read_bytes().startswith(b"\x89PNG")
