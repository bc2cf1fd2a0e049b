"""Every option of `smtool sample` reaches the pipeline."""

from pathlib import Path

SAMPLE = "smtool.commands.sample.samples.sample_images"


def test_without_options_the_sampler_of_the_checkpoint_is_unchanged(called):
    args, named = called(SAMPLE, "sample", "runs/sit", "--device", "cpu")
    assert args == ("runs/sit",)
    assert named["changes"] == {}
    assert (named["num_images"], named["kind"], named["labels"], named["out"]) == (64, "png", "balanced", None)


def test_all_options_are_passed_on(called):
    _, named = called(
        SAMPLE, "sample", "x.pt", "--out", "o", "--num-images", "3", "--labels", "7", "--sampler", "ddim", "--steps", "9",
        "--cfg-scale", "2", "--cfg-interval", "0", "0.5", "--cfg-channels", "3", "--epsilon-scale", "1.01", "--guide", "weak",
        "--seed", "4", "--batch", "2", "--grid", "1", "--format", "npz",
            "--rounding", "truncate",
        "--device", "cpu", "--autoencoder", "ae", "--scale", "0.5", "--heads", "6", "--tile", "512",
            "--snr-scale", "4", "--trace", "--beside", "t.json", "--precision", "bf16", "--compile",
    )  # fmt: skip
    assert named == {
        "out": Path("o"), "num_images": 3, "labels": "7", "seed": 4, "batch": 2, "grid": 1, "kind": "npz", "device": "cpu",
            "rounding": "truncate",
        "changes": {
            "kind": "ddim", "steps": 9, "cfg_scale": 2.0, "cfg_interval": (0.0, 0.5), "cfg_channels": 3, "epsilon_scale": 1.01,
            "precision": "bf16",
        },
        "autoencoder": "ae", "guide": "weak", "scale": 0.5, "heads": 6, "tile": 512, "snr_scale": 4.0, "trace": True,
            "beside": [Path("t.json")], "compiled": True,
    }  # fmt: skip
