"""What `smtool spectrum` says of an autoencoder, as predictors: one number each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from smtool.commands.race.result import Images
from smtool.commands.race.trial import Measured, Residual
from smtool.pipelines.spectrum.spectra import spectrum
from smtool.report.console import Console
from smtool.spectrum import spectral_flatness

SPECTRUM_IMAGES = 240
LOW_PASS_ROWS = 10
DELTA = 1.0
"""The target that all racers are compared with, whatever their own recipe aims at."""


def spectral_predictors(autoencoder: Path, images: Images, device: str) -> tuple[dict[str, Measured], Residual | None]:
    """Predictors by name, and the latents' distance from the target, for the page; on validation images."""
    source = images.validation or images.train
    result = spectrum(
        [str(autoencoder)], data=source, num_images=SPECTRUM_IMAGES, delta=DELTA, device=device, console=Console(quiet=True)
    )
    part = result["autoencoders"][0]
    physical, reference = _headline(part["physical"]), _headline(part["reference"])
    return {
        "esm_divergence": _number(reference, "divergence", "raw"),
        "esm_divergence_matched": _number(reference, "divergence", "match"),
        "divergence_db": _number(physical, "target", "divergence_db"),
        "delta": _number(physical, "delta"),
        "flatness": _flatness(physical),
        "kappa": _number(part, "transfer", "kappa"),
        "low_pass_gap": _gap(part["low_pass"]),
        **{name: _number(part, "direction", name) for name in ("rmsc", "lds", "cds")},
    }, _residual(physical)


def _headline(entries: Any) -> Mapping[str, Any]:
    return next((entry for entry in entries if entry.get("headline")), {"reason": "not measured"})


def _residual(physical: Mapping[str, Any]) -> Residual | None:
    residual = physical.get("target", {}).get("residual_db")
    return Residual(cycles_per_side=physical["cycles_per_side"], residual_db=residual) if residual else None


def _number(part: Mapping[str, Any], *keys: str) -> Measured:
    """The value under the keys, with its half width; where it was not measured, the reason."""
    found: Any = part
    for key in keys:
        found = found.get(key, {"reason": found.get("reason", "not measured")})
        if not isinstance(found, Mapping):
            return Measured(value=found) if found is not None else Measured(reason="not measured")
    if found.get("value") is None:
        return Measured(reason=str(found.get("reason", "not measured")))
    if found.get("half_width") is None:
        return Measured(value=found["value"])
    return Measured(value=found["value"], half_width=found["half_width"])


def _gap(curve: Mapping[str, Any]) -> Measured:
    """dB lost by removing LOW_PASS_ROWS anti-diagonals, the middle of DSM's cut-offs."""
    if "reason" in curve:
        return Measured(reason=curve["reason"])
    index = curve["rows_removed"].index(LOW_PASS_ROWS)
    return Measured(value=curve["gap"]["value"][index], half_width=curve["gap"]["half_width"][index])


def _flatness(physical: Mapping[str, Any]) -> Measured:
    """Geometric over arithmetic mean of the ring powers, a ring counting as many times as it has cells (Lemma A.2)."""
    if "power" not in physical:
        return Measured(reason=str(physical.get("reason", "not measured")))
    power = torch.tensor(physical["power"], dtype=torch.float64).repeat_interleave(torch.tensor(physical["cells"]))
    return Measured(value=float(spectral_flatness(power)))
