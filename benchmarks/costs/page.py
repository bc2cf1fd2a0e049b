"""Tables of a page between two marks, whose rows are replaced one by one."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/results/cost.md"


class MarkedTable:
    """The lines of a page between `<!-- NAME -->` and `<!-- end of NAME -->`: two of a head, then rows by their first cell."""

    def __init__(self, page: Path, name: str) -> None:
        self.page, self.name = page, name

    def rows(self) -> dict[str, str]:
        """First cell -> line."""
        table = self._parts()[2]
        return {line.split("|")[1].strip(): line for line in table}

    def put(self, cells: list[str], *, order: list[str]) -> None:
        """Replace or add a row; rows that are not in `order` are removed."""
        before, head, _, after = self._parts()
        rows = self.rows() | {cells[0]: f"| {' | '.join(cells)} |"}
        lines = [*before, *head, *(rows[name] for name in order if name in rows), *after]
        self.page.write_text("\n".join(lines) + "\n")

    def _parts(self) -> tuple[list[str], list[str], list[str], list[str]]:
        lines = self.page.read_text().splitlines()
        start, stop = lines.index(f"<!-- {self.name} -->") + 1, lines.index(f"<!-- end of {self.name} -->")
        return lines[:start], lines[start : start + 2], lines[start + 2 : stop], lines[stop:]
