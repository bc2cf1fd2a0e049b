import json

import pytest

from smtool.commands.train.run_folder import RunFolder
from smtool.errors import CheckpointError, RecipeError
from smtool.recipe import Recipe, TrainAE, load


def _recipe(*changes: str) -> Recipe[TrainAE]:
    return load("dsm", TrainAE, changes)


@pytest.fixture
def begun(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.begin(_recipe(), "cpu", 1)
    return folder


def test_recipe_and_environment_are_written(begun):
    assert (begun.path / "recipe.toml").read_text() == _recipe().text
    environment = json.loads((begun.path / "environment.json").read_text())
    assert environment["device"] == "cpu"
    assert environment["packages"]["torch"]
    assert begun.exists


@pytest.mark.parametrize(
    "changes", [(), ("log_every=7",), ("keep_last=9",), ("tracking.wandb=x",), ("validation.num_images=3",), ("data.workers=9",)]
)
def test_keys_that_do_not_affect_weights_may_change(begun, changes):
    begun.check_same(_recipe(*changes))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("optimizer.lr=1", "optimizer.lr: 0.001 -> 1.0"),
        ("regularizers.dsm=", "regularizers.dsm.block: 8 -> absent"),
        ("regularizers.kl={}", "regularizers.kl.weight: absent -> 1e-06"),
        ("seed=1", "seed: 0 -> 1"),
        ("steps=2000", "steps: 1000 -> 2000"),        # a cosine schedule depends on the number of steps
    ],
)
def test_keys_that_affect_weights_are_an_error_that_names_them(begun, change, line):
    with pytest.raises(RecipeError) as caught:
        begun.check_same(_recipe(change))
    assert line in str(caught.value)


def _begun_by_another_version(folder: RunFolder, old: str, new: str) -> None:
    resolved = folder.path / "resolved.toml"
    text = resolved.read_text()
    assert old in text
    resolved.write_text(text.replace(old, new))


def test_a_key_added_since_has_its_default(begun):
    _begun_by_another_version(begun, "attention = []\n", "")
    begun.check_same(_recipe())
    with pytest.raises(RecipeError) as caught:
        begun.check_same(_recipe("model.attention=[1]"))
    assert str(caught.value).count("Changed keys:\n  model.attention: [] -> [1]\n") == 1


def test_a_changed_default_is_an_error_and_the_old_value_can_be_set(begun):
    _begun_by_another_version(begun, "eps = 1e-08", "eps = 1e-06")
    with pytest.raises(RecipeError, match=r"optimizer\.eps: 1e-06 -> 1e-08") as caught:
        begun.check_same(_recipe())
    assert "Restore a value with --set KEY=VALUE" in str(caught.value)
    begun.check_same(_recipe("optimizer.eps=1e-6"))


def test_a_removed_key_is_named(begun):
    _begun_by_another_version(begun, "seed = 0\n", "seed = 0\nlast_word = 1\n")
    with pytest.raises(RecipeError, match="last_word: 1 -> absent"):
        begun.check_same(_recipe())


def test_a_run_with_a_constant_rate_may_get_longer(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(_recipe("optimizer.schedule=constant"), "cpu", 1)
    folder.check_same(_recipe("optimizer.schedule=constant", "steps=2000"))


def test_clear_removes_only_the_files_of_the_run(begun):
    (begun.checkpoints / "00000001").mkdir(parents=True)
    begun.end("DONE", "1 step")
    (begun.path / "notes.txt").write_text("mine")
    begun.clear()
    assert [path.name for path in begun.path.iterdir()] == ["notes.txt"]


def test_starting_again_removes_done_and_failed(begun):
    begun.end("FAILED", "diverged")
    begun.begin(_recipe(), "cpu", 1)
    assert not (begun.path / "FAILED").exists()


def test_a_damaged_record_of_the_recipe_is_named(begun):
    (begun.path / "resolved.toml").write_bytes(b"\xff = [")
    with pytest.raises(CheckpointError, match=r"resolved\.toml"):
        begun.check_same(_recipe())


def test_a_damaged_record_of_the_sources_is_named(begun):
    (begun.checkpoints / "00000001").mkdir(parents=True)
    (begun.checkpoints / "00000001" / "state.json").touch()
    (begun.path / "environment.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"environment\.json"):
        begun.recorded("features")
