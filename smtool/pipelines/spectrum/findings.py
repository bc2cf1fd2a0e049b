"""One sentence of a verdict, and where a measured interval lies with respect to a limit."""

from typing import Any, Literal

Tone = Literal["good", "warn", "note"]
Side = Literal["below", "above", "unknown"]


def finding(topic: str, tone: Tone, sentence: str, **numbers: float | None) -> dict[str, Any]:
    """A sentence with the numbers it rests on, ready for JSON."""
    return {"topic": topic, "tone": tone, "sentence": sentence, "numbers": numbers}


def side(value: float, half_width: float | None, limit: float) -> Side:
    """On which side of the limit the whole interval lies; "unknown" where it reaches across, or where there is none."""
    if half_width is None:
        return "unknown"
    if value + half_width <= limit:
        return "below"
    return "above" if value - half_width > limit else "unknown"
