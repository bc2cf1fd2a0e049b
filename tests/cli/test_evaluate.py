"""Every option of `smtool eval` reaches the evaluation; an option without effect is an error."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from smtool.cli import app
from smtool.errors import RecipeError
from smtool.evaluation.options import EvalOptions

EVALUATE = "smtool.commands.evaluate.evaluation.evaluate"


def options(called, *arguments):
    (what, found), _ = called(EVALUATE, "eval", *arguments, "--device", "cpu")
    return what, found


def test_without_options_the_defaults_are_those_of_eval_options(called):
    assert options(called) == (None, EvalOptions(scores=set(), features=[]))


@pytest.mark.parametrize("flag", ["fid", "sfid", "is", "kid", "mind", "pr", "psnr", "ssim"])
def test_each_flag_requests_the_score_of_its_name(called, flag):
    assert options(called, "runs/x", f"--{flag}") == ("runs/x", EvalOptions(scores={flag}, features=[]))


def test_feature_networks_and_the_network_of_lpips_are_passed_on(called):
    _, found = options(called, "--features", "random", "--features", "timm:vit", "--fd-dinov2", "--lpips")
    assert (found.features, found.scores) == (["random", "timm:vit", "dinov2"], {"lpips_alex"})
    assert options(called, "--lpips", "--lpips-net", "vgg")[1].scores == {"lpips_vgg"}


def test_options_of_images_and_sampling_are_passed_on(called):
    _, found = options(
        called, "x", "--data", "d", "--reference", "r", "--num-images", "9", "--protocol", "adm", "--infinity",
        "--sampler", "heun", "--steps", "3", "--cfg-scale", "1.5", "--cfg-interval", "0.1", "0.9",
        "--cfg-channels", "2", "--epsilon-scale", "1.01", "--guide", "weak", "--labels", "1,2",
        "--precision", "fp16", "--compile",
        "--batch", "4", "--seed", "5", "--weights-dir", "w", "--json", "j.json", "--table", "t.md", "--save-reference", "m.npz",
    )  # fmt: skip
    assert found == EvalOptions(
        scores=set(), features=[], infinity=True, reference="r", save_reference=Path("m.npz"), data="d", num_images=9,
        protocol="adm", labels="1,2", seed=5, batch=4, weights_dir=Path("w"), json_path=Path("j.json"), table_path=Path("t.md"),
        changes={
            "kind": "heun", "steps": 3, "cfg_scale": 1.5, "cfg_interval": (0.1, 0.9), "cfg_channels": 2, "epsilon_scale": 1.01,
            "precision": "fp16",
        },
        guide="weak", compiled=True,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["--lpips-net", "resnet", "--lpips"], ["--protocol", "tf"], ["--num-images", "1"]])
def test_an_invalid_value_is_a_usage_error(arguments):
    assert CliRunner().invoke(app, ["eval", *arguments]).exit_code == 2


def test_lpips_net_without_lpips_is_an_error():
    with pytest.raises(RecipeError, match="--lpips-net has no effect without --lpips"):
        CliRunner().invoke(app, ["eval", "--psnr", "--lpips-net", "vgg"], catch_exceptions=False, standalone_mode=False)


def test_the_help_says_which_tool_each_protocol_follows():
    words = " ".join(CliRunner().invoke(app, ["eval", "--help"], env={"COLUMNS": "200"}).output.split())
    for text in ("clean-fid", "Spectrum Matching", "ADM's evaluator", "Scores of reconstructions", "Scores of samples"):
        assert text in words
