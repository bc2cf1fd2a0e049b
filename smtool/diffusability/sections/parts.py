"""What every section is made of: numbers that may be missing, sentences of the verdict, and a chapter of the page."""

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
"""None where it is not finite: JSON has neither NaN nor infinity."""
Rounded = Annotated[Number, PlainSerializer(_six_digits, when_used="json")]
"""Unrounded in memory, six significant digits in JSON."""
Row = Annotated[list[float | None], PlainSerializer(lambda row: [*map(_six_digits, row)], when_used="json")]
Matrix = list[Row]


class Reason(Config):
    """Why a part is missing."""

    reason: str


class Estimate(Config):
    """A number with the half-width of its 95 % interval; null: too few units to say."""

    value: Number
    half_width: Number


class Finding(Config):
    """A sentence of the verdict, and the numbers it rests on."""

    topic: str
    tone: Tone
    sentence: str
    numbers: dict[str, Number]


def numbers(values: Tensor) -> list[float | None]:
    """The values (K,), with None for what is not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def or_reason(fit: Callable[Arguments, Model]) -> Callable[Arguments, Model | Reason]:
    """The function, returning the Reason instead of raising ValueError where something cannot be measured."""

    @wraps(fit)
    def fitted(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Model | Reason:
        try:
            return fit(*args, **kwargs)
        except ValidationError as error:
            if any(one["type"] != "finite_number" for one in error.errors()):
                raise
            return Reason(reason="what was found is not finite")
        except ValueError as error:
            return Reason(reason=str(error))

    return fitted


def finding(topic: str, tone: Tone, sentence: str, **numbers: float | None) -> Finding:
    return Finding(topic=topic, tone=tone, sentence=sentence, numbers=numbers)


def side(value: float, half_width: float | None, limit: float) -> Side:
    """On which side of the limit the whole interval lies; "unknown" where the limit is inside, or without an interval."""
    if half_width is None:
        return "unknown"
    if value + half_width <= limit:
        return "below"
    return "above" if value - half_width > limit else "unknown"


class Reading(Config):
    """Latents under one posterior and scale; of those of one estimator, the headline is the one that is drawn."""

    posterior: Literal["sample", "mean", "deterministic"]
    latents: Literal["normalized", "raw"]
    headline: bool


OneReading = TypeVar("OneReading", bound=Reading)


def headline(readings: Sequence[OneReading]) -> OneReading:
    """The reading that is drawn: sampled and normalized under PHYSICAL, sampled and raw under REFERENCE."""
    return next(reading for reading in readings if reading.headline)


def named(label: str, one: Reading) -> tuple[str, str]:
    """Label, at the headline only, and kind of a reading, for tables."""
    posterior = "point" if one.posterior == "deterministic" else one.posterior
    return label if one.headline else "", f"{posterior}, {'norm.' if one.latents == 'normalized' else 'raw'}"


def measured(parts: Mapping[str, Model | Reason]) -> list[tuple[int, str, Model]]:
    """Colour, label and part of each autoencoder that has the part; colours count the others too."""
    return [(colour, label, part) for colour, (label, part) in enumerate(parts.items()) if not isinstance(part, Reason)]


@dataclass(frozen=True)
class Plot:
    """A figure with its file name, its caption, and what it shows for those who cannot see it."""

    name: str
    draw: Callable[[], "Figure"]
    alt: str
    caption: str

    @cached_property
    def figure(self) -> "Figure":
        """Drawn when it is first asked for."""
        return self.draw()


@dataclass(frozen=True)
class Chapter:
    """A section of the page: paragraphs, plots and tables in order, then the pictures of these kinds.

    One without plot, table and picture is left out.
    """

    title: str
    blocks: Sequence[str | Plot | Table | None] = ()
    pictures: Sequence[str] = ()


def table_of(
    columns: tuple[str, ...], parts: Mapping[str, Model | Reason], cells: Callable[[Model], tuple[str, ...]], note: str
) -> Table | None:
    """A row for each autoencoder that has the part; the others are named below with their reasons. None without rows."""
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
    """None becomes nan, which is a gap in a line."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def banded(x: Values, values: Values, half_widths: Values | None, *, colour: int, label: str = "") -> Curve:
    """A curve with its half-widths as a band, where it has any."""
    at, value = array(x).tolist(), array(values)
    if half_widths is None:
        return Curve(label, at, value, colour=colour)
    half_width = array(half_widths)
    return Curve(label, at, value, value - half_width, value + half_width, colour=colour)
