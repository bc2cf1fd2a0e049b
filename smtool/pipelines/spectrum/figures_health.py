"""How latents vary in direction and where their bits are, as figures."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from smtool.pipelines.spectrum.curves import array
from smtool.report.plots import Curve
from smtool.report.plots.health import Before, capacity_figure, direction_figure
from smtool.spectrum import SPATIAL_MEASURES

Result = Mapping[str, Any]
DISTORTION = 0.01


def direction(result: Result) -> Figure | None:
    """RMSC, LDS and CDS before and after the alignments' filters, and the directional energy by band."""
    measured = {a["label"]: a["direction"] for a in result["autoencoders"] if "after" in a.get("direction", {})}
    if not measured:
        return None
    ways = {label: (part, part["after"]["spatial_normalize"], part["after"]["dog"]) for label, part in measured.items()}
    measures = {
        name.upper(): {label: Before([_estimate(part[name]) for part in parts]) for label, parts in ways.items()}
        for name in SPATIAL_MEASURES
    }
    energy = [Curve(label, range(1, len(part["energy"]) + 1), array(part["energy"]), colour=colour)
              for colour, (label, part) in enumerate(measured.items())]
    return direction_figure(measures, energy)


def _estimate(part: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return part.get("value"), part.get("half_width")


def capacity(result: Result) -> Figure | None:
    """Bits by band and by channel at 1 % distortion."""
    bands, channels = [], []
    for colour, autoencoder in enumerate(result["autoencoders"]):
        found = autoencoder.get("health", {}).get("capacity", [])
        for part in found if isinstance(found, list) else []:
            if part["distortion"] == DISTORTION:
                label, bits = autoencoder["label"], sorted(part["bits_per_channel"], reverse=True)
                bands.append(_counted(f"{label}: {part['bits_per_image']:,.0f} bits", part["bits_per_band"], colour))
                channels.append(_counted("", bits, colour))
    return capacity_figure(bands, channels, distortion=DISTORTION) if bands else None


def _counted(label: str, values: list[float | None], colour: int) -> Curve:
    return Curve(label, range(1, len(values) + 1), array(values), colour=colour)
