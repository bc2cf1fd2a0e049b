import math

import pytest
import torch

from smtool.evaluation.judges import build_judges
from smtool.evaluation.reconstruction_pass import Measurements
from smtool.evaluation.reconstruction_scores import Origin, reconstruction_scores
from smtool.evaluation.scores import score_table
from smtool.features.protocol import PROTOCOLS


def scores_of(psnrs, groups=None):
    measured = Measurements(len(psnrs), {"psnr": torch.tensor(psnrs).double()}, {})
    judges = build_judges({"psnr"}, [], PROTOCOLS["clean"])
    return reconstruction_scores(measured, judges, Origin("digest", groups), PROTOCOLS["clean"])


def test_images_reproduced_exactly_have_no_mean_psnr():
    (score,) = scores_of([math.inf, 30.0, math.inf]).values()
    assert (score.value, score.half_width) == (None, None)
    assert score.notes == ("2 of 3 images are reproduced exactly",)
    assert score_table([score], "title").rows[0][1] == "infinite"


def test_fewer_than_three_independent_images_give_no_interval():
    (score,) = scores_of([20.0, 30.0, 25.0, 26.0], groups=["a", "b", "a", "b"]).values()
    assert score.value == pytest.approx(25.25)
    assert score.half_width is None
    assert score.notes == ("no interval, because there are only 2 independent images",)


def test_the_table_shows_value_interval_number_and_weights():
    judges = build_judges([], [], PROTOCOLS["clean"])
    features = torch.rand(100, 64, dtype=torch.float64)
    measured = Measurements(100, {"psnr": torch.full((100,), 20.0), "ssim": torch.rand(100)}, {"fd_random": (features, features)})
    table = score_table(list(reconstruction_scores(measured, judges, Origin("digest"), PROTOCOLS["clean"]).values()), "title")
    assert table.rows[0][:4] == ("PSNR, dB ↑", "20.00 ± 0.00", "100", "-")
    assert table.columns == ("score", "value ± 95 %", "N", "weights")      # no resize and no codec
    assert table.rows[2][0] == "FD random ↓"
    assert table.rows[2][3] == judges.extractors[0].digest[:8]
    assert table.note == ""


def test_values_have_as_many_digits_as_their_intervals_justify():
    judges, measured = build_judges(["psnr"], [], PROTOCOLS["clean"]), Measurements(4, {"psnr": torch.rand(4)}, {})
    (score,) = reconstruction_scores(measured, judges, Origin("digest"), PROTOCOLS["clean"]).values()

    def shown(value, half_width):
        return score_table([score.model_copy(update={"value": value, "half_width": half_width})], "").rows[0][1]

    assert shown(28.6149, 0.0512) == "28.61 ± 0.05"
    assert shown(0.07262, 0.02123) == "0.073 ± 0.021"
    assert shown(-0.000287, 0.001077) == "-0.0003 ± 0.0011"
    assert shown(0.9, 0.0) == "0.900 ± 0.000"
    assert shown(0.0, None) == "0.00"
    assert shown(1e-12, 1e-12) == "0.0000000 ± 0.0000000"
    assert shown(0.00123, None) == "0.00123"
    assert shown(None, None) == "infinite"


def test_equal_notes_are_shown_once():
    judges = build_judges([], [], PROTOCOLS["clean"])
    features = torch.rand(6, 64, dtype=torch.float64)
    measured = Measurements(6, {"psnr": torch.rand(6), "ssim": torch.rand(6)}, {"fd_random": (features, features)})
    origin = Origin("digest", groups=["a", "b", "c"] * 2)
    scores = reconstruction_scores(measured, judges, origin, PROTOCOLS["clean"])
    lines = score_table(list(scores.values()), "title").note.splitlines()
    assert lines == [
        "PSNR, dB, SSIM, FD random: interval over 3 photographs, of which the images are crops.",
        "FD random: unreliable, 6 images for 64 features: no covariance of full rank, and a large bias.",
    ]
