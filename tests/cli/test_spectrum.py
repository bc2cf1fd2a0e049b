"""Every option of `smtool spectrum` reaches the pipeline."""

from pathlib import Path

SPECTRUM = "smtool.diffusability.spectrum.spectrum"


def test_all_options_are_passed_on(called):
    (what,), named = called(
        SPECTRUM, "spectrum", "a", "b", "--plot", "--data", "d", "--num-images", "9", "--budget", "2m", "--estimator", "physical",
        "--delta", "0.5", "--reference", "a", "--published", "x", "--published", "y", "--out", "o", "--downsample-pad",
        "symmetric", "--device", "cpu", "--weights-dir", "w", "--json", "j",
    )  # fmt: skip
    assert what == ["a", "b"]
    assert named == {
        "plot": True, "data": "d", "num_images": 9, "budget": 120.0, "estimator": "physical", "delta": 0.5, "reference": "a",
        "published": ["x", "y"], "out": Path("o"), "downsample_pad": "symmetric", "device": "cpu", "weights_dir": Path("w"),
        "json_path": Path("j"),
    }  # fmt: skip
