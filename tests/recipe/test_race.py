import tomllib

import pytest

from smtool.errors import RecipeError
from smtool.recipe import kind_of, packaged
from smtool.recipe.catalog import command, find, opening
from smtool.recipe.files import load
from smtool.recipe.race import Race, load_race
from smtool.tokenizers import open_tokenizer

RACES = [path for path in sorted(packaged().rglob("*.toml")) if "racers" in tomllib.loads(path.read_text())]
MINIMAL = """
[data]
train = "builtin:photos"
image_size = 32
[autoencoders]
changes = ["steps=4", "model.channels=[8, 8, 8]"]
[transformer]
changes = ["steps=6"]
[racers.plain]
recipe = "sd-vae"
[racers.dsm]
recipe = "dsm"
"""


@pytest.fixture
def recipe(tmp_path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    return str(path)


def test_recipes_were_found():
    assert {path.relative_to(packaged()).as_posix() for path in RACES} >= {"race/faces.toml"}


@pytest.mark.parametrize("path", RACES, ids=lambda path: str(path.relative_to(packaged())))
def test_every_recipe_loads_opens_with_its_command_and_has_no_idle_setting(path):
    loaded, entries = load_race(str(path))
    name = path.relative_to(packaged()).as_posix()
    assert path.read_text().splitlines()[0].startswith(f"# smtool race recipes/{name}")
    assert list(loaded.tables.remarks()) == []
    assert len(opening(name.removesuffix(".toml"))) > 20
    assert len(entries) == len(loaded.tables.racers) >= 2
    assert Race.model_validate(tomllib.loads(loaded.resolved_toml())) == loaded.tables


@pytest.mark.parametrize("path", RACES, ids=lambda path: str(path.relative_to(packaged())))
def test_the_ranking_features_are_in_no_loss_and_no_teacher_and_learned_latents_have_eight_cells_a_side(path):
    loaded, entries = load_race(str(path))
    for entry in entries:
        perceptual = entry.autoencoder.tables.perceptual if entry.autoencoder else None
        teacher = entry.transformer.tables.alignment.teacher if entry.transformer.tables.alignment else ""
        assert loaded.tables.judge.features[0] not in {teacher, perceptual and {"squeeze": "squeezenet"}.get(perceptual.net)}
        if entry.racer.checkpoint.startswith("dct:"):      # predictors need larger grids than blocks of DCT may have
            assert not loaded.tables.judge.predictors
        elif not entry.racer.checkpoint.startswith("runs/"):      # trained by the reader
            assert min(_latent_shape(loaded, entry)[-2:]) >= 8


def _latent_shape(loaded, entry):
    if entry.autoencoder is None:
        return open_tokenizer(entry.racer.checkpoint).latent_shape(*loaded.tables.data.image_size)
    return entry.autoencoder.tables.shapes.latents


def test_racers_apply_the_shared_changes_the_images_and_then_their_own_changes(recipe):
    _, entries = load_race(recipe, ["racers.dsm.changes=['regularizers.dsm.rows_removed=[0, 8]']"])
    plain, dsm = (entry.autoencoder.tables for entry in entries)
    assert plain.model.channels == dsm.model.channels == (8, 8, 8)
    assert (plain.data.train, plain.data.image_size.stored, plain.steps) == ("builtin:photos", 32, 4)
    assert dsm.regularizers.dsm.rows_removed == (0, 8)
    assert [entry.transformer.tables.steps for entry in entries] == [6, 6]


def test_a_racer_whose_name_has_dots_and_equals_signs_can_be_added_and_removed(recipe):
    added = ['racers."delta=0.6".recipe=esm', "racers.'a.b'.recipe=sd-vae"]
    assert [entry.name for entry in load_race(recipe, added)[1]] == ["plain", "dsm", "delta=0.6", "a.b"]
    assert [entry.name for entry in load_race(recipe, [*added, 'racers."delta=0.6"=', "racers.plain="])[1]] == ["dsm", "a.b"]


def test_recipes_of_a_race_and_of_a_training_are_distinguished(recipe):
    assert command(find(recipe)) == "race"
    with pytest.raises(RecipeError, match=r"is a recipe of race\.\n  Use: smtool race"):
        kind_of(recipe)
    with pytest.raises(RecipeError, match=r"dsm is a recipe of train-ae\.\n  Use: smtool train-ae dsm"):
        load_race("dsm")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("racers.dsm.recipe=", "racers.dsm.recipe: either a recipe to train or a checkpoint is needed, but neither is given"),
        ("racers.dsm.checkpoint=x", "racers.dsm.recipe: either a recipe to train or a checkpoint is needed, but both are given"),
        ("racers.dsm.recipe=dms", "racers.dsm.recipe: dms: no such recipe"),
        ("racers.dsm.recipe=sit", "racers.dsm.recipe: sit is a recipe of train-dit"),
        ("racers.dsm.changes=['steps=5']", "racers.dsm: the autoencoder's steps is 5, but 4 for plain"),
        ("racers.dsm.transformer=['optimizer.lr=1']", "the transformer's optimizer is {'lr': 1.0}, but {'lr': 0.001} for plain"),
        ("racers.dsm.changes=['data.batch=8']", "racers.dsm: the autoencoder's data.batch is 8, but 16 for plain"),
        ("racers.dsm.changes=['regularizers.dsm.blok=4']", "regularizers.dsm.blok: no such key. Did you mean `block`?"),
        ("data.train=", "data.train: is required, because the race trains plain"),
        ("seeds=[1, 1]", "seeds: one is given twice"),
        ("racers={}", "racers"),
        ('racers."a/b".recipe=dsm', "racers.a/b: a name may contain only letters"),
        ("turns=3", "turns: no such key. Did you mean `turn`?"),
    ],
)
def test_each_mistake_has_a_clear_message(recipe, override, words):
    with pytest.raises(RecipeError) as caught:
        load_race(recipe, [override])
    assert words in str(caught.value)


def test_mistakes_in_several_recipes_are_reported_together(recipe):
    with pytest.raises(RecipeError) as caught:
        load_race(recipe, ["racers.dsm.recipe=dms", "racers.plain.changes=['stps=1']", "transformer.changes=['patch=3']"])
    text = str(caught.value)
    assert "3 problems" in text
    assert all(words in text for words in ("racers.dsm.recipe", "racers.plain.recipe", "transformer.recipe"))


def test_two_seeds_give_a_remark(recipe):
    assert "2 seeds" in next(load(recipe, Race, ["seeds=[0, 1]"]).tables.remarks())
