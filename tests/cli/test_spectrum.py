"""Every option of `smtool spectrum` reaches the pipeline."""

from pathlib import Path

import pytest

from smtool.diffusability.plan import Limit, limit_of

SPECTRUM = "smtool.diffusability.spectrum.spectrum"


def test_all_options_are_passed_on(called):
    (what,), named = called(
        SPECTRUM, "spectrum", "a", "b", "--plot", "--data", "d", "--num-images", "9", "--budget", "2m", "--estimator", "physical",
        "--delta", "0.5", "--reference", "a", "--published", "x", "--published", "y", "--out", "o", "--downsample-pad",
        "symmetric", "--tile", "512", "--device", "cpu", "--weights-dir", "w", "--json", "j", "--snr-threshold", "2",
    )  # fmt: skip
    assert what == ["a", "b"]
    assert named == {
        "plot": True, "data": "d", "num_images": 9, "limit": Limit(120.0, ends_early=True), "estimator": "physical",
        "delta": 0.5, "reference": "a", "tile": 512,
        "published": ["x", "y"], "out": Path("o"), "downsample_pad": "symmetric", "device": "cpu", "weights_dir": Path("w"),
        "json_path": Path("j"), "snr_threshold": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "limit"), [([], Limit(300.0)), (["--full"], None), (["--budget", "10m"], Limit(600.0, ends_early=True))]
)
def test_a_report_on_a_cpu_takes_at_most_five_minutes_unless_told_otherwise(options, limit, called):
    _, named = called(SPECTRUM, "spectrum", "a", "--device", "cpu", *options)
    assert named["limit"] == limit


def test_a_gpu_has_no_time_limit():
    assert limit_of(None, "cuda") is None


def test_full_and_a_budget_contradict_each_other(command):
    code, _, err = command("spectrum", "a", "--full", "--budget", "2m")
    assert code == 2
    assert "--full has no time limit, but --budget sets one" in err
