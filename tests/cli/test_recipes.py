"""`smtool recipes` as a command."""

from smtool.recipe.catalog import find, names


def test_a_list_has_every_recipe_with_a_line_of_its_own(output):
    lines = output("recipes", "list").splitlines()
    assert [line.split()[0] for line in lines] == names()
    assert all(len(line.split()) > 2 for line in lines)


def test_a_recipe_is_shown_as_it_is_and_copied_with_its_command(output, tmp_path):
    text = find("sit").read_text(encoding="utf-8")
    assert output("recipes", "show", "sit") == text
    to = tmp_path / "mine.toml"
    assert output("recipes", "copy", "sit", str(to)) == f"{to}\n  train with: smtool train-dit {to}\n"
    assert to.read_text(encoding="utf-8") == text
