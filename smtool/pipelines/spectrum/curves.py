"""Parts of a result as curves: what is missing becomes a gap in the line, half-widths become bands."""

from collections.abc import Sequence

import numpy as np

from smtool.report.plots import Curve

Values = Sequence[float | None]


def array(values: Values) -> np.ndarray:
    """None, which stands for what is not finite, becomes nan."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def around(x: Sequence[float], values: Values, half_widths: Values | None, *, colour: int, label: str = "") -> Curve:
    """A curve with its half-widths as a band, where it has any."""
    value = array(values)
    if half_widths is None:
        return Curve(label, x, value, colour=colour)
    half_width = array(half_widths)
    return Curve(label, x, value, value - half_width, value + half_width, colour=colour)
