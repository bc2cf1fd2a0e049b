import io

import pytest

from smtool.report.console import Console
from smtool.report.tables import Table, interval


def test_a_table_prints_its_cells_as_they_are():
    out = io.StringIO()
    table = Table("Scores [all]", ("autoencoder", "PSNR"), (("dsm", "24.5"), ("[bold]", "3")), note="N = 8")
    Console(file=out).print(table)
    for text in ("Scores [all]", "autoencoder", "24.5", "[bold]", "N = 8"):
        assert text in out.getvalue()


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 columns, but a row of 1"):
        Table("t", ("a", "b"), (("1",),))


def test_an_interval_shows_as_many_digits_as_asked_for():
    assert interval(0.987, 0.123) == "0.99 ± 0.12"
    assert interval(0.98765, None, digits=3) == "0.988"


def test_markdown_keeps_cells_apart_and_title_and_note_outside():
    table = Table("Scores", ("autoencoder", "PSNR"), (("a|b", "24.5 ± 0.1"),), note="N = 8")
    assert table.markdown().splitlines() == [
        "Scores", "", "| autoencoder | PSNR |", "| --- | ---: |", "| a\\|b | 24.5 ± 0.1 |", "", "N = 8"
    ]  # fmt: skip
    assert Table("", ("a",), (("1",),)).markdown() == "| a |\n| --- |\n| 1 |"
