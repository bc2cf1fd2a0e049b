"""A table for the console and for HTML pages. Cells are strings; the caller formats numbers."""

import re
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

_WORD = re.compile(r"± \S+|\S+")
_BETWEEN = 3      # characters that rich puts between two columns


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; the first column is left-aligned. note: explanation, shown below the table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r} has {len(self.columns)} columns, but a row of {len(row)}: {row}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = RichTable(
            title=Text(self.title) if self.title else None,
            title_justify="left",
            caption=Text(self.note) if self.note else None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for index, (column, width) in enumerate(zip(self.columns, self._widths(options.max_width), strict=True)):
            table.add_column(Text(column), justify="right" if index else "left", overflow="fold", width=width)
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        yield table

    def _widths(self, room: int) -> list[int]:
        """Width of each column, in characters. Words stay whole if all columns fit; else the longest are broken first."""
        cells = list(zip(self.columns, *self.rows, strict=True))
        whole = [max(map(len, column)) for column in cells]
        words = [max((len(word) for cell in column for word in _WORD.findall(cell)), default=1) for column in cells]
        room -= _BETWEEN * len(cells) - 1
        limit = max(words)
        while limit > 1 and sum(min(width, limit) for width in words) > room:
            limit -= 1
        widths = [min(width, limit) for width in words]
        while (left := room - sum(widths)) > 0 and (short := [k for k, width in enumerate(widths) if width < whole[k]]):
            nearest = min(short, key=lambda k: whole[k] - widths[k])      # first the column that needs least
            widths[nearest] += min(left, whole[nearest] - widths[nearest])
        return widths

    def markdown(self) -> str:
        """The table as Markdown text."""
        lines = [self.columns, ("---", *("---:" for _ in self.columns[1:])), *self.rows]
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n\n".join(part for part in (self.title, "\n".join(rows), self.note) if part)


def interval(value: float, half_width: float | None, *, digits: int = 2) -> str:
    """Text `value ± half width`, or the value alone without a half width."""
    return f"{value:.{digits}f}" + ("" if half_width is None else f" ± {half_width:.{digits}f}")
