"""Panels from the rows of metrics.jsonl: losses, losses by band, validation scores, optimizer and speed."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from smtool.report.curves import Panel

FLOOR = "floor_"
_LONGEST = 30      # characters of a title, so that its value also fits above a panel
_TITLES = {
    "l1": ("reconstruction (l1)", "mean |D(z) - x|"),
    "mse": ("reconstruction (mse)", "mean (D(z) - x)²"),
    "velocity": ("velocity of the denoiser", "mean squared error"),
    "wavelet": ("reconstruction (wavelet bands)", "mean |coefficient| of D(z) - x"),
    "lpips": ("LPIPS", "distance"),
    "kl": ("KL of the posterior", "nats, unweighted"),
    "esm": ("ESM", "KL of spectra, unweighted"),
    "adversarial": ("adversarial term", "-mean D(reconstruction)"),
    "discriminator": ("discriminator", "hinge loss"),
    "diffusion": ("diffusion, all frequencies", "mean squared error"),
    "alignment": ("alignment with the teacher", "-mean cosine"),
    "latent_alignment": ("alignment, autoencoder's turn", "-mean cosine"),
    "val_psnr": ("PSNR", "dB"),
    "val_ssim": ("SSIM", "mean over images"),
    "val_lpips": ("LPIPS", "mean over images"),
    "val_latent_std": ("std of the latents", "over all elements"),
    "val_esm_divergence": ("distance from target spectrum", "KL, REFERENCE estimator"),
    "val_delta": ("delta, PHYSICAL estimator", "exponent of the flattening"),
    "images_per_second": ("speed", "images / s"),
    "waiting_share": ("waiting for data", "share of the time"),
}


def loss_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Panels of all unweighted losses, except those by band."""
    return _panels(rows, [name for name in _names(rows) if not _is_progress(name) and not _is_band(name) and "val_" not in name])


def band_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Panels of the diffusion loss in each band of latent frequency, with its floor if it was logged."""
    names = sorted((name for name in _names(rows) if _is_band(name)), key=lambda name: int(name[4:]))
    places = {0: ", lowest", len(names) - 1: ", highest"}
    return [
        _panel(rows, name, f"band {index + 1}{places.get(index, '')}", "mean squared error" if index == 0 else "", colour=1)
        for index, name in enumerate(names)
    ]


def score_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Panels of the validation scores."""
    return _panels(rows, [name for name in _names(rows) if name.startswith("val_")], colour=2)


def progress_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Panels of learning rates, gradient norms, balancing factors and speed."""
    return _panels(rows, [name for name in _names(rows) if _is_progress(name)], colour=3)


def latest(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The last finite value of a quantity; None if there is none."""
    return next((row[name] for row in reversed(rows) if row.get(name) is not None), None)


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the logged quantities, in order of first appearance."""
    found = dict.fromkeys(name for row in rows for name in row)
    return [name for name in found if name not in ("step", "not_finite") and not name.startswith(FLOOR)]


def _is_band(name: str) -> bool:
    return re.fullmatch(r"band\d+", name) is not None


def _is_progress(name: str) -> bool:
    return name in ("images_per_second", "waiting_share") or name.startswith("lr_") or name.endswith(("_gradient", "_factor"))


def _panels(rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, colour: int = 0) -> list[Panel]:
    return [_panel(rows, name, *_title(name), colour=colour) for name in names]


def _panel(rows: Sequence[Mapping[str, Any]], name: str, title: str, label: str, *, colour: int) -> Panel:
    values = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    steps, numbers = zip(*values, strict=True) if values else ((), ())
    floor = latest(rows, f"{FLOOR}{name}")
    title = title if len(title) <= _LONGEST else f"{title[: _LONGEST - 1]}…"
    shown = f"{title}: {_number(numbers[-1])}" if numbers else title
    level = None if floor is None else (floor, "floor if Gaussian")
    return Panel(shown, label, steps, numbers, level, colour, linear=_is_progress(name))


def _title(name: str) -> tuple[str, str]:
    if name in _TITLES:
        return _TITLES[name]
    if name.startswith("lr_"):
        return f"learning rate, {name[3:]}", ""
    if name.endswith("_gradient"):
        return f"gradient, {name.removesuffix('_gradient')}", "norm, before clipping"
    if name.endswith("_factor"):
        return f"balance of {name.removesuffix('_factor')}", "ratio of gradient norms"
    return name.removeprefix("val_"), "distance" if name.startswith(("val_fd_", "val_kid_")) else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
