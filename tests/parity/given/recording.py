"""Recordings as files, and the comparison of two results."""

import json
import math
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "recordings"
RTOL = 1e-9
"""Float64 rounds at 1.1e-16. Sums of up to 1e5 terms in another order, through a network and a few updates of AdamW (which divides
by the root of its second moment), were measured to differ by 1e-13 to 1e-11; 1e-9 leaves a factor of 100 and is still 1e5 below
the 1e-4 that the tier must see, also in a term that makes up a thousandth of the loss."""


def write(path: Path, recording: dict[str, Any]) -> None:
    path.write_text(json.dumps(recording, indent=1) + "\n", encoding="utf-8")


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def differences(recorded: Any, found: Any, *, rtol: float = RTOL, place: str = "") -> list[str]:
    """One sentence for each number, length or key that differs; numbers under "direction" are compared on the scale of 1."""
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
        scale = max(abs(recorded), abs(found), 1.0 if "/direction/" in place else 0.0)
        close = math.isfinite(found) and abs(recorded - found) <= rtol * scale
        return [] if close else [f"{place}: recorded {recorded!r}, found {found!r}, apart by {abs(recorded - found) / (scale or 1):.1e}"]
    return [] if recorded == found else [f"{place}: recorded {recorded!r}, found {found!r}"]
