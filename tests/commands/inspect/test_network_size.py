"""Size of a recipe's transformer, with and without a trained autoencoder."""

import pytest

from smtool.commands.inspect.network_size import size_rows
from smtool.recipe import TrainDiT, load
from smtool.recipe.catalog import autoencoder_recipe


def rows_of(recipe: str, *changes: str) -> dict[str, str]:
    return size_rows(load(recipe, TrainDiT, changes).tables)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_run_of_a_packaged_recipe_need_not_exist():
    """runs/dsm is f4 with 4 channels at 64 px."""
    rows = rows_of("sit")
    assert rows["latent"] == "4 x 16 x 16, 8 x 8 tokens"
    with_size = rows_of("sit", "model.size=S")
    # released-code.md#sizes-of-sit: 32,957,200 at (4, 32, 32) and 1000 classes; here 1001 class rows and 192 positions fewer
    assert with_size["parameters"] == f"{32_957_200 - 1001 * 384 - 192 * 384:,}"
    assert rows_of("sit", "latents.autoencoder=runs/dsm/ckpt.safetensors") == rows


def test_a_paper_recipe_has_the_published_size():
    rows = rows_of("paper/table2/f16d16-dsm.dit", "data.image_size=256")
    assert rows["latent"].startswith("16 x 16 x 16")
    assert rows["parameters"].replace(",", "").isdigit()


def test_classes_that_are_not_known_yet_are_counted_per_class():
    rows = rows_of("sit", "labels={}", "model.size=S")
    base, each = 32_957_200 - 1000 * 384 - 192 * 384, 384      # the row of the null class is in the base
    assert rows["parameters"] == f"{base:,} plus {each:,} for each class of the images"


def test_an_existing_autoencoder_is_preferred_to_its_recipe(studio, monkeypatch):
    monkeypatch.chdir(studio.folder)
    rows = rows_of(studio.recipe)
    assert rows["latent"] == "2 x 8 x 8, 4 x 4 tokens"
    assert rows["parameters"].endswith(" for 3 classes")
    assert rows_of("sit", "latents.autoencoder=pixels", "data.image_size=16")["latent"] == "3 x 16 x 16, 8 x 8 tokens"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["latents.autoencoder=nowhere"], "unknown: nowhere: "),
        (["latents.autoencoder=pixels"], "unknown: the latents' shape depends on pixels and data.image_size"),
        (["model.patch=3"], "unknown: a latent of 16x16 cannot be cut into patches of patch = 3"),
    ],
)
def test_unknown_sizes_are_stated(changes, words):
    assert rows_of("sit", *changes)["parameters"].startswith(words)


def test_only_recipes_of_train_ae_have_runs_that_are_autoencoders():
    assert autoencoder_recipe("runs/dsm") == ("dsm", True)
    assert autoencoder_recipe("runs/paper-table2-f16d16-dsm.ae") == ("paper/table2/f16d16-dsm.ae", True)
    assert autoencoder_recipe("runs/quickstart/plain") == ("quickstart/plain", False)
    assert autoencoder_recipe("runs/sit") is None and autoencoder_recipe("elsewhere/dsm") is None
