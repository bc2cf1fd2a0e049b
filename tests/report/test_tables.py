import io

import pytest
import rich.console

from smtool.report.console import Console
from smtool.report.tables import Table, interval


def test_a_table_prints_its_cells_as_they_are():
    out = io.StringIO()
    table = Table("Scores [all]", ("autoencoder", "PSNR"), (("dsm", "24.5"), ("[bold]", "3")), note="N = 8")
    Console(file=out).print(table)
    for text in ("Scores [all]", "autoencoder", "24.5", "[bold]", "N = 8"):
        assert text in out.getvalue()


@pytest.mark.parametrize("width", [100, 80, 40])
def test_names_stay_whole_if_they_fit_and_are_broken_but_not_dropped_otherwise(width):
    names = ("rows-0-8-10-12-13", "scale-equivariance")
    table = Table("", ("place", "racer", *"abcd"), tuple(("1-2", name, *["0.0710 ± 0.0092"] * 4) for name in names))
    out = io.StringIO()
    rich.console.Console(file=out, width=width).print(table)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert all((name in out.getvalue()) == (width >= 80) for name in names)
    assert out.getvalue().count("±") == 8
    below = out.getvalue().rpartition("─")[2]
    assert sum(map(str.isalpha, below)) == sum(map(str.isalpha, "".join(names)))      # perhaps broken, never dropped


def test_a_row_with_too_few_cells_is_an_error():
    with pytest.raises(ValueError, match="2 columns, but a row of 1"):
        Table("t", ("a", "b"), (("1",),))


def test_an_interval_has_the_requested_digits():
    assert interval(0.987, 0.123) == "0.99 ± 0.12"
    assert interval(0.98765, None, digits=3) == "0.988"


def test_markdown_keeps_cells_apart_and_title_and_note_outside():
    table = Table("Scores", ("autoencoder", "PSNR"), (("a|b", "24.5 ± 0.1"),), note="N = 8")
    assert table.markdown().splitlines() == [
        "Scores", "", "| autoencoder | PSNR |", "| --- | ---: |", "| a\\|b | 24.5 ± 0.1 |", "", "N = 8"
    ]  # fmt: skip
    assert Table("", ("a",), (("1",),)).markdown() == "| a |\n| --- |\n| 1 |"
