"""`smtool recipes` as a command."""

import pytest

from smtool.errors import RecipeError
from smtool.recipe import systems as related
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


def test_the_table_has_every_related_recipe_with_its_published_score(output, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    text = output("recipes", "table")
    rows = [name for name in names() if name.startswith("paper/related/")]
    assert len(rows) >= 9 and all(name.removeprefix("paper/") in text for name in rows)
    (row,) = [line for line in text.splitlines() if line.strip().startswith("VA-VAE, 2025")]
    assert "gFID 5.14, with guidance 2.11" in row
    assert "LightningDiT, 2025" in text and "DiT-DH on RAE, 2025" in text


def test_a_head_may_continue_a_line_and_must_have_every_line(tmp_path, monkeypatch):
    path = tmp_path / "x.toml"
    monkeypatch.setattr(related, "find", lambda name: path)
    monkeypatch.setattr(related, "names", lambda: ["dsm", "paper/related/x"])
    first = "# System: X, 2030\n# Regularizes: a\n"
    path.write_text(first + "#   and b\n# View: v\n# Score: s\n# other\n#   not this\n# In small: none\n")
    assert related.systems() == [related.System("paper/related/x", "X, 2030", "a and b", "v", "s", "none")]
    path.write_text(first + "# View: v\n# Score: s\n")
    with pytest.raises(RecipeError, match=r"paper/related/x: its head lacks a line `# In small: \.\.\.`"):
        related.systems()
