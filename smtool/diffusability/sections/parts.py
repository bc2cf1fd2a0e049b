"""Building blocks of all sections: numbers that may be missing, findings of the verdict, plots, tables, chapters of the page."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Annotated, Literal, ParamSpec, TypeVar

import numpy as np
from pydantic import BeforeValidator, PlainSerializer, ValidationError
from torch import Tensor

from smtool.config import Config
from smtool.report.plots import Curve
from smtool.report.tables import Table, interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tone = Literal["good", "warn", "note"]
Side = Literal["below", "above", "unknown"]
Values = Sequence[float | None]
Model = TypeVar("Model")
Arguments = ParamSpec("Arguments")


def _or_none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _six_digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


Number = Annotated[float | None, BeforeValidator(_or_none)]
"""A float, or None if it is not finite, because JSON has neither NaN nor infinity."""
Rounded = Annotated[Number, PlainSerializer(_six_digits, when_used="json")]
"""A number, unrounded in memory, with six significant digits in JSON."""
Row = Annotated[list[float | None], PlainSerializer(lambda row: [*map(_six_digits, row)], when_used="json")]
Matrix = list[Row]


class Reason(Config):
    """Stands for a part that could not be measured, with the reason."""

    reason: str


NOT_MEASURED = Reason(reason="not measured, use --full")
"""In place of a section that was cut to keep the time limit."""


class Estimate(Config):
    """A number with the half-width of its 95 % interval, null where there are too few units for an interval."""

    value: Number
    half_width: Number


class Finding(Config):
    """A statement of the verdict, and the numbers it uses."""

    topic: str
    tone: Tone
    sentence: str
    numbers: dict[str, Number]


def numbers(values: Tensor) -> list[float | None]:
    """The values (K,), with None for what is not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def or_reason(fit: Callable[Arguments, Model]) -> Callable[Arguments, Model | Reason]:
    """Wrap a function so that it returns a Reason instead of raising ValueError when something cannot be measured."""

    @wraps(fit)
    def fitted(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Model | Reason:
        try:
            return fit(*args, **kwargs)
        except ValidationError as error:
            if any(one["type"] != "finite_number" for one in error.errors()):
                raise
            return Reason(reason="the result is not finite")
        except ValueError as error:
            return Reason(reason=str(error))

    return fitted


def finding(topic: str, tone: Tone, sentence: str, **numbers: float | None) -> Finding:
    return Finding(topic=topic, tone=tone, sentence=sentence, numbers=numbers)


def side(value: float, half_width: float | None, limit: float) -> Side:
    """The side of the limit on which the whole interval lies; "unknown" if the limit is inside, or without an interval."""
    if half_width is None:
        return "unknown"
    if value + half_width <= limit:
        return "below"
    return "above" if value - half_width > limit else "unknown"


class Reading(Config):
    """Latents of one posterior kind and scale. headline: whether this is the one reading of an estimator that is drawn."""

    posterior: Literal["sample", "mean", "deterministic"]
    latents: Literal["normalized", "raw"]
    headline: bool


OneReading = TypeVar("OneReading", bound=Reading)


def headline(readings: Sequence[OneReading]) -> OneReading:
    """The reading that is drawn: sampled and normalized for PHYSICAL, sampled and raw for REFERENCE."""
    return next(reading for reading in readings if reading.headline)


def named(label: str, one: Reading) -> tuple[str, str]:
    """Two table cells: the label (for the headline only, else empty) and the kind of the reading."""
    posterior = "point" if one.posterior == "deterministic" else one.posterior
    return label if one.headline else "", f"{posterior}, {'norm.' if one.latents == 'normalized' else 'raw'}"


def measured(parts: Mapping[str, Model | Reason]) -> list[tuple[int, str, Model]]:
    """Colour, label and part of each autoencoder that has the part. The colour is the position among all autoencoders."""
    return [(colour, label, part) for colour, (label, part) in enumerate(parts.items()) if not isinstance(part, Reason)]


@dataclass(frozen=True)
class Plot:
    """A figure. name: of its file; alt: text for screen readers; caption: printed below it."""

    name: str
    draw: Callable[[], "Figure"]
    alt: str
    caption: str

    @cached_property
    def figure(self) -> "Figure":
        """The figure, drawn at first access."""
        return self.draw()


@dataclass(frozen=True)
class Chapter:
    """A section of the page: paragraphs, plots and tables in order, then the pictures of the given kinds.

    A chapter without plot, table and picture is left out.
    """

    title: str
    blocks: Sequence[str | Plot | Table | None] = ()
    pictures: Sequence[str] = ()


def table_of(
    columns: tuple[str, ...], parts: Mapping[str, Model | Reason], cells: Callable[[Model], tuple[str, ...]], note: str
) -> Table | None:
    """A table with one row per autoencoder that has the part; the note lists the others with reasons. None without rows."""
    rows = tuple((label, *cells(part)) for _, label, part in measured(parts))
    reasons = [f"{label}: {part.reason}" for label, part in parts.items() if isinstance(part, Reason)]
    return Table("", ("autoencoder", *columns), rows, "\n".join([note, *reasons])) if rows else None


def shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def shown_estimate(found: Estimate | Reason, digits: int = 3) -> str:
    if isinstance(found, Reason) or found.value is None:
        return "-"
    return interval(found.value, found.half_width, digits=digits)


def array(values: Values) -> np.ndarray:
    """The values as an array; None becomes NaN, which leaves a gap in a line."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def banded(x: Values, values: Values, half_widths: Values | None, *, colour: int, label: str = "") -> Curve:
    """A curve, with a band of its half-widths if there are any."""
    at, value = array(x).tolist(), array(values)
    if half_widths is None:
        return Curve(label, at, value, colour=colour)
    half_width = array(half_widths)
    return Curve(label, at, value, value - half_width, value + half_width, colour=colour)
