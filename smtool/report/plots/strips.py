"""Rows of small pictures, with a label for each row and column and a line of text below each picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from smtool.report.plots.style import GREY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TILE, GAP, LABEL, TEXT = 1.25, 0.07, 1.5, 0.2
"""Inches: side of a picture, space between pictures, width of the row labels, height of a line of text."""


@dataclass(frozen=True)
class Block:
    """Pictures with the same row labels and columns as those of the blocks beside it.

    rows: label -> pictures, uint8 (columns, 3, H, W). notes: label -> the text below each picture, for the rows that have one.
    """

    rows: Mapping[str, Tensor]
    notes: Mapping[str, Sequence[str]]


def strips_figure(blocks: Sequence[Block], columns: Sequence[str]) -> "Figure":
    """Blocks side by side; columns are the titles above each block's pictures."""
    wide, tall = len(columns) * (TILE + GAP) + 3 * GAP, TILE + GAP + TEXT
    labels = list(blocks[0].rows)
    width, height = LABEL + len(blocks) * wide, TEXT + 2 * GAP + len(labels) * tall
    with styled({"axes.grid": False}):
        figure = new_figure(width, height, solved=False)
        for row, label in enumerate(labels):
            top = height - TEXT - GAP - row * tall
            figure.text(GAP / width, (top - TILE / 2) / height, label, va="center", fontsize=10)
            for number, block in enumerate(blocks):
                for column, picture in enumerate(block.rows[label]):
                    left = LABEL + number * wide + column * (TILE + GAP)
                    axes = figure.add_axes((left / width, (top - TILE) / height, TILE / width, TILE / height))
                    axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
                    axes.set_axis_off()
                    if row == 0:
                        axes.set_title(columns[column], loc="center", fontsize=9)
                    if label in block.notes:
                        figure.text((left + TILE / 2) / width, (top - TILE - GAP / 2) / height, block.notes[label][column],
                                    ha="center", va="top", fontsize=8, color=GREY)
        return figure
