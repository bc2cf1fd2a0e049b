"""`train-ae --data` and `--max-bad`: what they replace, and the name of the run."""

import tomllib
from pathlib import Path

import pytest

from smtool.commands.train.given_data import run_of

SMALL = (
    "--set", "model.channels=[4,4,4]", "--set", "model.norm_groups=4", "--set", "model.blocks_per_level=1", "--set", "steps=1",
    "--set", "data.batch=4", "--set", "data.image_size=32", "--set", "regularizers.dsm=", "--set", "evaluate_every=1",
    "--set", "validation.num_images=2", "--set", "validation.grid=2", "--set", "tracking.tensorboard=false",
)


@pytest.fixture
def pictures(studio, tmp_path, monkeypatch) -> Path:
    """A folder of 14 photographs and one file that is no image, in an otherwise empty working folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in sorted((studio.folder / "pictures" / "a").iterdir()):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return folder


def test_max_bad_decides_whether_a_broken_image_is_an_error(pictures, command):
    code, _, said = command("train-ae", "dsm", "--data", "mine", *SMALL)
    assert code == 3 and "1 of 15 images cannot be used, more than --max-bad allows" in said
    code, _, said = command("train-ae", "dsm", "--data", "mine", "--max-bad", "0.1", *SMALL)
    assert code == 0, said
    assert (pictures.parent / "runs" / "dsm-mine" / "DONE").is_file()      # named after recipe and data


def test_data_replaces_the_validation_of_the_recipe_and_says_so(pictures, command):
    recipe = pictures.parent / "own.toml"
    recipe.write_text((Path(__file__).parents[3] / "recipes" / "dsm.toml").read_text().replace(
        "[data]\n", '[data]\nvalidation = "builtin:photos"\n'
    ))
    call = ["train-ae", str(recipe), "--data", "mine", "--max-bad", "0.1", *SMALL]
    code, shown, said = command(*call)
    assert code == 0, said
    assert "--data also replaces the recipe's data.validation = 'builtin:photos'" in " ".join(shown.split())
    resolved = tomllib.loads((pictures.parent / "runs" / "own-mine" / "resolved.toml").read_text())
    assert (resolved["data"]["train"], resolved["data"]["validation"]) == ("mine", "")
    assert command(*call, "--set", "data.validation=builtin:photos", "--out", "again")[0] == 0
    assert tomllib.loads(Path("again/resolved.toml").read_text())["data"]["validation"] == "builtin:photos"


def test_a_run_of_an_earlier_version_is_resumed_where_it_stands(pictures):
    assert run_of("dsm", "mine") == Path("runs/dsm-mine")
    earlier = pictures.parent / "runs" / "dsm" / "resolved.toml"
    earlier.parent.mkdir(parents=True)
    earlier.write_text('[data]\ntrain = "mine"\n')
    assert run_of("dsm", "mine") == Path("runs/dsm")
    earlier.write_text('[data]\ntrain = "builtin:photos"\n')
    assert run_of("dsm", "mine") == Path("runs/dsm-mine")
    assert run_of("dsm", "builtin:photos?train=16").name.startswith("dsm-photos")
