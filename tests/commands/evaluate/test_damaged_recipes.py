"""Checkpoints whose recipe is damaged or of another version: one sentence that says what would work."""

from pathlib import Path

import pytest
import torch

from smtool.checkpoints import write_autoencoder
from smtool.commands.evaluate.evaluation import evaluate
from smtool.data import open_images
from smtool.errors import CheckpointError, DataError
from smtool.evaluation.options import EvalOptions
from smtool.networks.sd_vae import SDVAE
from smtool.report.console import Console

SIDE = 16
SOURCE = "builtin:photos?train=2&val=4"
GOOD = {"train": SOURCE, "image_size": SIDE, "batch": 4}
DAMAGES = {
    "image_size: must be one whole number": {"data": {**GOOD, "image_size": "big"}},
    "image_size: is required, but missing": {"data": {"train": SOURCE, "batch": 4}},
    "batch: must be at least 1, but is -4": {"data": {**GOOD, "batch": -4}},
    r"widht: no such key\.": {"data": {**GOOD, "widht": 3}},
    "train: .* but is 7": {"data": {**GOOD, "train": 7}},
    r"image_size: .*; data\.batch: must be at least 1, but is 0": {"data": {**GOOD, "image_size": 0, "batch": 0}},
    r"its recipe has no table \[data\]": {"data": ["builtin:photos"]},
    r"recipe has no table \[data\]": {},
    r"has no table \[data\]": "steps = 5",
    r"no table \[data\]": [1, 2],
}


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = SDVAE(downsample=4, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1).build()

    def write(recipe):
        write_autoencoder(Path("ckpt.safetensors"), autoencoder, {"recipe": recipe, "step": 1, "data": "-"})
        return "ckpt.safetensors"

    return write


def scored(what, **options):
    return evaluate(what, EvalOptions(scores={"psnr"}, **options), console=Console(quiet=True))


@pytest.mark.parametrize(("said", "recipe"), DAMAGES.items(), ids=range(len(DAMAGES)))
def test_a_damaged_recipe_is_named_in_one_sentence(written, said, recipe):
    with pytest.raises(CheckpointError, match=said) as caught:
        scored(written(recipe))
    assert caught.value.message.startswith("ckpt.safetensors ") and "\n" not in caught.value.message
    assert not {"validation error", "pydantic", "type="} & set(caught.value.message.split())
    assert caught.value.hint == "Pass some: --data FOLDER"


@pytest.mark.parametrize("recipe", DAMAGES.values(), ids=range(len(DAMAGES)))
def test_the_hint_works_and_names_what_else_is_missing(written, recipe):
    prepared = open_images(SOURCE, "val", image_size=SIDE)
    assert scored(written(recipe), data=str(prepared.folder)).scores["psnr"].value > 0
    try:
        scored(written(recipe), data="builtin:photos?train=2&val=3")      # needs the size in the recipe
    except DataError as error:
        assert "the checkpoint does not state an image size" in error.message


def test_every_damage_is_an_error_without_pydantics_words(written, command):
    code, _, err = command("eval", written({"data": {**GOOD, "image_size": "big"}}), "--psnr")
    assert code == CheckpointError.exit_code
    assert "data.image_size: must be one whole number or [height, width]" in err
    assert "validation error" not in err and "errors.pydantic.dev" not in err
