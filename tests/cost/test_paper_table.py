"""The table of docs/results/cost.md: all recipes of the papers, rows as they are counted now."""

from pathlib import Path

import pytest

from benchmarks.costs.page import PAGE, MarkedTable
from benchmarks.costs.table import first, paper_recipes, row

CHEAP = ("recipes/paper/dctdiff/cifar10-pixels.dit.toml", "recipes/paper/dctdiff/celeba64-s4.dit.toml")


def test_the_table_has_all_recipes_of_the_papers_in_order():
    names = paper_recipes()
    assert len(names) > 60 and set(CHEAP) < set(names)
    assert list(MarkedTable(PAGE, "paper recipes").rows()) == [first(name) for name in names]


@pytest.mark.parametrize("name", CHEAP)
def test_a_row_is_what_is_counted_now(name):
    cells = [cell.strip() for cell in MarkedTable(PAGE, "paper recipes").rows()[first(name)].strip("|").split("|")]
    assert cells == row(name)


def test_rows_are_replaced_and_old_ones_removed(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- t -->\n| a | b |\n|---|---|\n| x | 1 |\n| gone | 2 |\n<!-- end of t -->\nafter\n")
    table = MarkedTable(page, "t")
    table.put(["new", "3"], order=["new", "x"])
    table.put(["x", "4"], order=["new", "x"])
    assert page.read_text() == "before\n<!-- t -->\n| a | b |\n|---|---|\n| new | 3 |\n| x | 4 |\n<!-- end of t -->\nafter\n"
    with pytest.raises(ValueError):
        MarkedTable(page, "other").rows()
