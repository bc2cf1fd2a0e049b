import json

import pytest

from smtool.commands.train.run_folder import RunFolder
from smtool.errors import RecipeError
from smtool.recipe import Recipe, TrainAE, load


def _recipe(*changes: str) -> Recipe[TrainAE]:
    return load("dsm", TrainAE, changes)


@pytest.fixture
def begun(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.begin(_recipe(), "cpu", 1)
    return folder


def test_what_was_asked_for_and_where_it_ran_is_written_down(begun):
    assert (begun.path / "recipe.toml").read_text() == _recipe().text
    environment = json.loads((begun.path / "environment.json").read_text())
    assert environment["device"] == "cpu"
    assert environment["packages"]["torch"]
    assert begun.exists


@pytest.mark.parametrize(
    "changes", [(), ("log_every=7",), ("keep_last=9",), ("tracking.wandb=x",), ("validation.num_images=3",), ("data.workers=9",)]
)
def test_what_changes_no_weight_may_change(begun, changes):
    begun.check_same(_recipe(*changes))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("optimizer.lr=1", "optimizer.lr: 0.001 -> 1.0"),
        ("regularizers.dsm=", "regularizers.dsm.block: 8 -> absent"),
        ("regularizers.kl={}", "regularizers.kl.weight: absent -> 1e-06"),
        ("seed=1", "seed: 0 -> 1"),
        ("steps=2000", "steps: 1000 -> 2000"),        # its cosine schedule depends on the length
    ],
)
def test_what_changes_weights_is_refused_and_named(begun, change, line):
    with pytest.raises(RecipeError) as caught:
        begun.check_same(_recipe(change))
    assert line in str(caught.value)


def _begun_by_another_version(folder: RunFolder, old: str, new: str) -> None:
    resolved = folder.path / "resolved.toml"
    text = resolved.read_text()
    assert old in text
    resolved.write_text(text.replace(old, new))


def test_a_key_that_the_run_was_begun_without_has_its_default(begun):
    _begun_by_another_version(begun, "attention = []\n", "")
    begun.check_same(_recipe())
    with pytest.raises(RecipeError) as caught:
        begun.check_same(_recipe("model.attention=[1]"))
    assert str(caught.value).count("changed since:\n  model.attention: [] -> [1]\n") == 1


def test_a_default_that_changed_since_is_named_and_the_old_value_goes_on(begun):
    _begun_by_another_version(begun, "eps = 1e-08", "eps = 1e-06")
    with pytest.raises(RecipeError, match=r"optimizer\.eps: 1e-06 -> 1e-08") as caught:
        begun.check_same(_recipe())
    assert "--set KEY=VALUE goes on" in str(caught.value)
    begun.check_same(_recipe("optimizer.eps=1e-6"))


def test_a_key_that_is_gone_is_named(begun):
    _begun_by_another_version(begun, "seed = 0\n", "seed = 0\nlast_word = 1\n")
    with pytest.raises(RecipeError, match="last_word: 1 -> absent"):
        begun.check_same(_recipe())


def test_a_run_with_a_constant_rate_may_get_longer(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(_recipe("optimizer.schedule=constant"), "cpu", 1)
    folder.check_same(_recipe("optimizer.schedule=constant", "steps=2000"))


def test_starting_over_removes_what_a_run_wrote_and_nothing_else(begun):
    (begun.checkpoints / "00000001").mkdir(parents=True)
    begun.end("DONE", "1 step")
    (begun.path / "notes.txt").write_text("mine")
    begun.clear()
    assert [path.name for path in begun.path.iterdir()] == ["notes.txt"]


def test_beginning_again_removes_the_mark_of_an_earlier_end(begun):
    begun.end("FAILED", "diverged")
    begun.begin(_recipe(), "cpu", 1)
    assert not (begun.path / "FAILED").exists()
