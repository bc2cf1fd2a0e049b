"""`smtool recipes` as a command."""

from smtool.recipe.catalog import find, names


def test_the_list_has_one_line_with_a_description_for_each_recipe(output):
    lines = output("recipes", "list").splitlines()
    assert [line.split()[0] for line in lines] == names()
    assert all(len(line.split()) > 2 for line in lines)


def test_show_prints_a_recipe_unchanged_and_copy_also_names_its_command(output, tmp_path):
    text = find("sit").read_text(encoding="utf-8")
    assert output("recipes", "show", "sit") == text
    to = tmp_path / "mine.toml"
    assert output("recipes", "copy", "sit", str(to)) == f"{to}\n  train with: smtool train-dit {to}\n"
    assert to.read_text(encoding="utf-8") == text
