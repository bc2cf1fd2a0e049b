"""Rows of Markdown tables."""

import re


def row(*cells: str) -> str:
    """One row; what Markdown would take as HTML or as the end of a cell is escaped."""
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |\n"


def _cell(text: str) -> str:
    parts = re.split(r"(`[^`]*`)", text.replace("|", "\\|").replace("\n", " "))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)
