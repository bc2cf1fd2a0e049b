"""Every option of `smtool eval` reaches the evaluation; those that would do nothing are refused."""

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


def test_with_nothing_asked_everything_is_as_the_evaluation_has_it(called):
    assert options(called) == (None, EvalOptions(scores=set(), features=[]))


@pytest.mark.parametrize("flag", ["fid", "sfid", "is", "kid", "pr", "psnr", "ssim"])
def test_a_score_is_called_as_its_flag(called, flag):
    assert options(called, "runs/x", f"--{flag}") == ("runs/x", EvalOptions(scores={flag}, features=[]))


def test_extractors_and_lpips_are_named(called):
    _, found = options(called, "--features", "random", "--features", "timm:vit", "--fd-dinov2", "--lpips")
    assert (found.features, found.scores) == (["random", "timm:vit", "dinov2"], {"lpips_alex"})
    assert options(called, "--lpips", "--lpips-net", "vgg")[1].scores == {"lpips_vgg"}


def test_all_that_is_compared_and_drawn_is_passed_on(called):
    _, found = options(
        called, "x", "--data", "d", "--reference", "r", "--num-images", "9", "--protocol", "adm", "--infinity",
        "--sampler", "heun", "--steps", "3", "--cfg-scale", "1.5", "--cfg-interval", "0.1", "0.9", "--labels", "1,2",
        "--batch", "4", "--seed", "5", "--weights-dir", "w", "--json", "j.json", "--table", "t.md", "--save-reference", "m.npz",
    )  # fmt: skip
    assert found == EvalOptions(
        scores=set(), features=[], infinity=True, reference="r", save_reference=Path("m.npz"), data="d", num_images=9,
        protocol="adm", labels="1,2", seed=5, batch=4, weights_dir=Path("w"), json_path=Path("j.json"), table_path=Path("t.md"),
        changes={"kind": "heun", "steps": 3, "cfg_scale": 1.5, "cfg_interval": (0.1, 0.9)},
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["--lpips-net", "resnet", "--lpips"], ["--protocol", "tf"], ["--num-images", "1"]])
def test_words_that_mean_nothing_end_with_usage(arguments):
    assert CliRunner().invoke(app, ["eval", *arguments]).exit_code == 2


def test_a_trunk_without_its_score_is_refused():
    with pytest.raises(RecipeError, match="--lpips-net names the trunk of --lpips, which is not asked"):
        CliRunner().invoke(app, ["eval", "--psnr", "--lpips-net", "vgg"], catch_exceptions=False, standalone_mode=False)


def test_help_names_every_protocol_and_what_it_agrees_with():
    words = " ".join(CliRunner().invoke(app, ["eval", "--help"], env={"COLUMNS": "200"}).output.split())
    for text in ("clean-fid", "Spectrum Matching", "ADM's evaluator", "Scores of reconstructions", "Scores of samples"):
        assert text in words
