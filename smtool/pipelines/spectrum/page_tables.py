"""The sections' numbers as tables of the page: a row for each autoencoder, and "-" where there is no number."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smtool.report.tables import Table, interval
from smtool.spectrum import SPATIAL_MEASURES

Result = Mapping[str, Any]
Entry = Mapping[str, Any]


def transfer_table(result: Result) -> Table | None:
    columns = ("autoencoder", "kappa", "own share", "above Nyquist", "downwards", "relative kappa", "self-check")
    keys = ("kappa", "share", "above", "down", "relative_kappa", "self_check")
    return _table(result, "transfer", columns, lambda part: tuple(_number(part[key]) for key in keys), _TRANSFER_NOTE)


_TRANSFER_NOTE = (
    "kappa: own share beyond chance, 1 is perfect; self-check: how far a row moves at a third of the size, above 0.05 the "
    "decoder is not linear at this scale"
)


def lens_table(result: Result) -> Table | None:
    columns = ("autoencoder", "first drowns", "last drowns", "reference", "shift by cells", "shift by energy", "a shift helps")
    note = "time shift s of t' = s t / (1 + (s - 1) t), towards the reference's signal-to-noise"
    return _table(result, "lens", columns, _lens_row, note)


def _lens_row(part: Entry) -> tuple[str, ...]:
    crossing, shift = part["crossing"], part["shift"]
    ends = (_number(crossing[-1]), _number(crossing[0]))
    if "by_cells" not in shift:
        return (*ends, shift.get("reason", "-"), "-", "-", "-")
    helps = "no: the shapes differ" if shift["cannot_change"] else "yes"
    return (*ends, shift["reference"], _number(shift["by_cells"]), _number(shift["by_energy"]), helps)


def direction_table(result: Result) -> Table | None:
    rows = []
    for autoencoder in result["autoencoders"]:
        part = autoencoder.get("direction", {})
        if "after" not in part:
            continue
        ways = {"as they are": part, "iREPA": part["after"]["spatial_normalize"], "REPA-DoG": part["after"]["dog"]}
        for way, one in ways.items():
            label = autoencoder["label"] if one is part else ""
            rows.append((label, way, *(_estimate(one[name]) for name in SPATIAL_MEASURES)))
    return Table("", ("autoencoder", "tokens", *map(str.upper, SPATIAL_MEASURES)), tuple(rows)) if rows else None


def health_table(result: Result) -> Table | None:
    """One row for each check, so that autoencoders stand side by side."""
    measured = [a for a in result["autoencoders"] if a.get("health")]
    if not measured:
        return None
    rows = tuple((name, *(check(a["health"]) for a in measured)) for name, check in _CHECKS.items())
    return Table("", ("check", *(a["label"] for a in measured)), rows, _HEALTH_NOTE)


_HEALTH_NOTE = (
    "effective rank: of the covariance, and of the correlations in brackets; grid: reconstruction minus input, template share "
    "and phase contrast; shift errors: shares of the image's (latent's) variance, 0 is perfect"
)


def _dead(health: Entry) -> str:
    channels = health.get("channels") or []
    return f"{sum(channel['dead'] for channel in channels)} of {len(channels)}" if channels else "-"


def _loudness(health: Entry) -> str:
    stds = [channel["std"] for channel in health.get("channels") or [] if channel["std"] is not None]
    return f"{min(stds):.3g} to {max(stds):.3g}" if stds else "-"


def _rank(health: Entry) -> str:
    rank = health.get("effective_rank") or {}
    if "entropy" not in rank:
        return rank.get("reason", "-")
    return f"{rank['entropy']:.1f} ({rank['entropy_correlation']:.1f}) of {rank['num_channels']}"


def _bits(distortion: float) -> Callable[[Entry], str]:
    def bits(health: Entry) -> str:
        found = health.get("capacity") or []
        shown = [part for part in found if isinstance(found, list) and part["distortion"] == distortion]
        return f"{shown[0]['bits_per_image']:,.0f}" if shown else "-"

    return bits


def _own_bits(health: Entry) -> str:
    part = health.get("channel_capacity") or {}
    return f"{part['bits_per_image']:,.0f}" if "bits_per_image" in part else part.get("reason", "-")


def _grid(health: Entry) -> str:
    grid = health.get("grid") or {}
    if "template" not in grid:
        return grid.get("reason", "-")
    return f"{_number(grid['template']['excess'], 3)}, {_number(grid['phase']['excess'])} (period {grid['period']} px)"


def _error(name: str) -> Callable[[Entry], str]:
    return lambda health: _number((health.get("shift") or {}).get(name), 3)


def _fp16(health: Entry) -> str:
    part = health.get("fp16") or {}
    if "overflows" not in part or part["overflows"] is None:
        return part.get("reason") or "-"
    largest = "not finite" if part["largest_activation"] is None else f"{part['largest_activation']:.3g}"
    return f"{'overflows' if part['overflows'] else 'fits'}: {largest} at {part['layer']}"


_CHECKS: dict[str, Callable[[Entry], str]] = {
    "dead channels": _dead,
    "std of channels": _loudness,
    "effective rank": _rank,
    "bits at 10 % loss": _bits(0.1),
    "bits at 1 % loss": _bits(0.01),
    "bits at 0.1 % loss": _bits(0.001),
    "bits above posterior noise": _own_bits,
    "grid excess": _grid,
    "shift error, reconstruction": _error("reconstruction"),
    "shift error, whole cells": _error("whole_cell"),
    "shift error, latent": _error("latent"),
    "fp16": _fp16,
}


def _table(
    result: Result, section: str, columns: Sequence[str], row: Callable[[Entry], tuple[str, ...]], note: str
) -> Table | None:
    """Of the autoencoders that have the section; those without are named below it with their reason."""
    rows, reasons = [], []
    for autoencoder in result["autoencoders"]:
        part = autoencoder.get(section) or {}
        if part and "reason" not in part:
            rows.append((autoencoder["label"], *row(part)))
        elif part:
            reasons.append(f"{autoencoder['label']}: {part['reason']}")
    return Table("", tuple(columns), tuple(rows), "\n".join([note, *reasons])) if rows else None


def _estimate(part: Entry) -> str:
    if part.get("value") is None:
        return "-"
    return interval(part["value"], part["half_width"], digits=3)


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
