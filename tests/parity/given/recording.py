"""Files of recordings, and the comparison of two results."""

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "recordings"
RTOL = 1e-9
"""Relative tolerance. Float64 rounds at 1.1e-16. A different order of sums in the network and in AdamW, which divides small
gradients by their own size, changed samples by 1e-15 and updates and averages by at most 9e-11 in measurements; 1e-9 leaves a
factor of 10. It is 1e5 times less than the error of 1e-4 that the tests must detect, so that the error is also detected in a term
that is a thousandth of the loss."""


def write(path: Path, recording: dict[str, Any]) -> None:
    text = json.dumps(recording, indent=1)
    short = re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text)  # a list of numbers on one line
    path.write_text(short + "\n", encoding="utf-8")


def read(name: str) -> dict[str, Any]:
    """A stored recording."""
    return read_file(FOLDER / f"{name}.json")


def read_file(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def differences(recorded: Any, found: Any, *, rtol: float = RTOL, place: str = "") -> list[str]:
    """One line for each number, length or key that differs; numbers under "direction" are compared relative to 1."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        lines = [f"{place}/{key}: only on one side" for key in sorted(recorded.keys() ^ found.keys())]
        for key in recorded.keys() & found.keys():
            lines += differences(recorded[key], found[key], rtol=rtol, place=f"{place}/{key}")
        return lines
    if isinstance(recorded, list) and isinstance(found, list):
        if len(recorded) != len(found):
            return [f"{place}: {len(recorded)} entries recorded, {len(found)} found"]
        pairs = enumerate(zip(recorded, found, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, rtol=rtol, place=f"{place}/{number}")]
    if isinstance(recorded, float) and isinstance(found, float):
        scale = max(abs(recorded), abs(found), 1.0 if "/direction/" in place else 1e-300)
        apart = abs(recorded - found) / scale
        return [] if apart <= rtol else [f"{place}: recorded {recorded!r}, found {found!r}, apart by {apart:.1e}"]
    return [] if recorded == found else [f"{place}: recorded {recorded!r}, found {found!r}"]
