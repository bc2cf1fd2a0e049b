"""A table that can be shown on a console and on a page. Cells are text: who makes a number knows how many digits it deserves."""

from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable
from rich.text import Text


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; the first column is left-aligned. note: what a reader must know to read the numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r} has {len(self.columns)} columns, but a row of {len(row)}: {row}")

    def __rich__(self) -> RichTable:
        table = RichTable(
            title=Text(self.title) if self.title else None,
            title_justify="left",
            caption=Text(self.note) if self.note else None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for index, column in enumerate(self.columns):
            table.add_column(Text(column), justify="right" if index else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table

    def markdown(self) -> str:
        """To paste into a README, an issue or a paper's source."""
        lines = [self.columns, ("---", *("---:" for _ in self.columns[1:])), *self.rows]
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n\n".join(part for part in (self.title, "\n".join(rows), self.note) if part)


def interval(value: float, half_width: float | None, *, digits: int = 2) -> str:
    """`value +- half width`, or the value alone where no interval can be given."""
    return f"{value:.{digits}f}" + ("" if half_width is None else f" ± {half_width:.{digits}f}")
