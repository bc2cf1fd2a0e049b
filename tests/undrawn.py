"""Trainings and races without their drawings, which take most of the time of tiny ones, for tests that look at other results."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from smtool.commands.race import page as race_page
from smtool.commands.train import comparison, report, validate
from smtool.report.curves import Panel
from smtool.report.html import Page
from smtool.report.plots.style import new_figure


def leave_out_drawings(put: Callable[[Any, str, Any], None]) -> None:
    """Replace the spectrum of each validation by a small black picture, the curves of report.html by their titles, and figures of
    races by empty ones.

    put: sets an attribute, such as `setattr`.
    """
    leave_out_curves(put)
    for figure in ("curves_figure", "predictors_figure", "seeds_figure", "spectra_figure"):
        put(race_page, figure, lambda *results: new_figure(1, 1, solved=False))


def leave_out_curves(put: Callable[[Any, str, Any], None]) -> None:
    """The same for trainings only."""
    put(validate, "live_spectrum", _picture)
    put(comparison, "draw_live", _picture)
    put(report, "_figure", _titles)


def _picture(*arguments: Any, **options: Any) -> Tensor:
    return torch.zeros(3, 8, 8, dtype=torch.uint8)


def _titles(page: Page, panels: Sequence[Panel], caption: str, *, columns: int = 3) -> None:
    page.text("; ".join(panel.title for panel in panels))
