"""A regularizer of the user's own code in a recipe: `[regularizers."module:Class"]`."""

import json
from pathlib import Path

import pytest
import warm_process

from smtool.errors import RecipeError
from smtool.recipe import TrainAE, load

MODULE = '''
from pydantic import Field
from smtool.regularizers import Regularizer, RegularizerConfig

class TotalVariation(RegularizerConfig):
    weight: float = Field(0.01, gt=0)
    def build(self, shapes, weights_dir):
        return TotalVariationLoss(self.weight)
    def problems(self, shapes):
        if shapes.latents[-1] < 4:
            yield "weight", "needs latents of at least 4 cells a side"

class TotalVariationLoss(Regularizer):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight
    def penalty(self, encoding, draw):
        z = encoding.latents
        return z.diff(dim=-1).abs().mean() + z.diff(dim=-2).abs().mean()
'''
KEY = 'regularizers."{}.losses:TotalVariation"'


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The key of a regularizer in a package of its own in the current folder, which no other test has imported."""
    monkeypatch.chdir(tmp_path)
    package = tmp_path / f"own_{abs(hash(str(tmp_path)))}"
    package.mkdir()
    (package / "losses.py").write_text(MODULE)
    return KEY.format(package.name)


def test_its_keys_are_validated_and_resolved_like_any_others(own):
    tables = load("sd-vae", TrainAE, [f"{own}.weight=0.5"]).tables
    name = own.removeprefix("regularizers.").strip('"')
    assert list(tables.regularizers.present) == ["kl", name]
    assert tables.regularizers.present[name].weight == 0.5
    resolved = load("sd-vae", TrainAE, [f"{own}.weight=0.5"]).resolved()
    assert resolved["regularizers"][name] == {"weight": 0.5}
    assert TrainAE.model_validate(resolved) == tables


@pytest.mark.parametrize(("change", "said"), [
    (".weight=-1", r'losses:TotalVariation"\.weight: must be greater than 0\.0, but is -1'),
    (".wight=1", r'losses:TotalVariation"\.wight: no such key\. Did you mean `weight`'),
])
def test_a_wrong_value_is_named_with_its_key(own, change, said):
    with pytest.raises(RecipeError, match=said):
        load("sd-vae", TrainAE, [own + change])


def test_its_own_checks_are_asked_before_anything_runs(own):
    with pytest.raises(RecipeError, match=r'TotalVariation"\.weight: needs latents of at least 4 cells'):
        load("sd-vae", TrainAE, [f"{own}.weight=1", "data.image_size=8"])


@pytest.mark.parametrize(("key", "said"), [
    ("no_such_module:A", "could not be imported: ModuleNotFoundError"),
    ("json:nothing", "could not be imported: AttributeError"),
    ("json:JSONDecoder", "is not a recipe table of a regularizer"),
])
def test_what_is_no_regularizer_is_refused_by_its_name(key, said):
    with pytest.raises(RecipeError, match=said):
        load("sd-vae", TrainAE, [f'regularizers."{key}".weight=1'])


def test_a_typo_of_a_known_method_gets_its_guess():
    with pytest.raises(RecipeError, match=r"regularizers\.dms: no such key\. Did you mean `dsm`"):
        load("sd-vae", TrainAE, ["regularizers.dms.weight=1"])


@pytest.mark.slow
def test_a_run_learns_from_it_and_its_checkpoint_opens_without_the_module(own, tmp_path):
    changes = [
        "steps=2", "model.channels=[8, 8, 8]", "data.image_size=32", "validation.num_images=4", "validation.grid=2",
        "data.train=builtin:photos?train=8&val=24", f"{own}.weight=0.5",
    ]
    options = [part for change in changes for part in ("--set", change)]
    done = warm_process.run("train-ae", "sd-vae", "--out", "run", *options)
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    name = own.removeprefix("regularizers.").strip('"')
    assert row[name] > 0
    shown = warm_process.run("inspect", tmp_path / "run" / "ckpt.safetensors", cwd=Path("/"))
    assert shown.returncode == 0, shown.stderr
    assert "TotalVariation" in shown.stdout
