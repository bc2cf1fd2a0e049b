"""`smtool spectrum`: how far the power spectra of latents are from a flattened copy of their images'."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from smtool import __version__
from smtool.errors import RecipeError
from smtool.pipelines.spectrum.figures import figures
from smtool.pipelines.spectrum.measure import Pass, Subject, measure, open_measured, open_subjects
from smtool.pipelines.spectrum.scores import low_pass_scores
from smtool.pipelines.spectrum.scores_physical import physical_of_images, physical_of_latents
from smtool.pipelines.spectrum.scores_reference import reference_of_images, reference_of_latents
from smtool.pipelines.spectrum.tables import tables
from smtool.pipelines.threads import one_thread
from smtool.report.console import Console
from smtool.report.plots import figure_bytes
from smtool.spectrum import PHYSICAL, REFERENCE, Estimator
from smtool.spectrum.published import published_curves
from smtool.storage import write_bytes, write_json

SCHEMA = "smtool.spectrum/1"
BUILTIN = "builtin:photos"
NUM_IMAGES, NUM_LOW_PASS = 240, 32
_MEASURED = "the std of each channel over these images (it has no LatentStats)"

_ESTIMATORS: dict[str, tuple[Estimator, ...]] = {
    "physical": (PHYSICAL,),
    "reference": (REFERENCE.loss, REFERENCE.curve),
    "both": (PHYSICAL, REFERENCE.loss, REFERENCE.curve),
}


def spectrum(
    what: list[str],
    *,
    plot: bool = False,
    data: str | None = None,
    num_images: int | None = None,
    budget: float | None = None,
    estimator: Literal["physical", "reference", "both"] = "both",
    delta: float | None = None,
    out: Path | None = None,
    json_path: Path | None = None,
    published: Sequence[str] = (),
    device: str = "cpu",
    console: Console,
) -> dict[str, Any]:
    """Measure autoencoders (or "images" alone) on the same images, print tables, and write figures and spectrum.json.

    data: default builtin:photos, at the size the autoencoders were trained at. num_images: default 240, and 32 for the low-pass
    curve. budget: seconds; the pass then ends once every delta is known to +-0.1, or when they are spent. delta: of the target
    that latents are compared with; default the one a recipe's ESM aims at, else 1. out: default beside the first checkpoint.
    """
    if json_path == Path("-"):      # standard output then belongs to the JSON
        console = Console(quiet=True)
    overlays = [_published(name) for name in published]
    estimators = _ESTIMATORS[estimator]
    low_pass_images = min(NUM_LOW_PASS, num_images or NUM_LOW_PASS)
    names = [name for name in what if name != "images"]
    subjects = open_subjects(names, estimators, low_pass_images=low_pass_images, device=device)
    shards = open_measured(data or BUILTIN, subjects, console)
    limit = min(len(shards), num_images or (NUM_IMAGES if budget is None else len(shards)))
    gathered = measure(shards, subjects, estimators, limit=limit, budget=budget, device=device, console=console)
    aim = delta if delta is not None else _aim(subjects)
    with one_thread():
        result = {
            "schema": SCHEMA,
            "smtool": __version__,
            "passport": _passport(gathered, data or BUILTIN, estimators, aim),
            "images": _images_part(gathered, aim),
            "autoencoders": [_autoencoder_part(subject, gathered, aim) for subject in subjects],
            "published": overlays,
        }
    for table in tables(result):
        console.print(table)
    files = _files(result, folder=out or _beside(subjects), plot=plot, kept=plot or out is not None, json_path=json_path)
    for path in files:
        console.print(str(path))
    return result


def _aim(subjects: Sequence[Subject]) -> float:
    """The delta that the recipes' ESM tables agree on; 1, the paper's choice, where there is none."""
    aims = {float(esm["delta"]) for s in subjects if (esm := s.recipe.get("regularizers", {}).get("esm")) and "delta" in esm}
    return aims.pop() if len(aims) == 1 else 1.0


def _passport(gathered: Pass, data: str, estimators: Sequence[Estimator], delta: float) -> dict[str, Any]:
    """What must be known to read or repeat the numbers."""
    shards, units = gathered.shards, gathered.units
    return {
        "data": {
            "source": data,
            "split": {"val": "validation", "train": "training"}[shards.split],
            "digest": shards.digest,
            "images": len(units.groups),
            "image_size": shards.image_size,
            "unit": units.name,
            "units": len(units),
        },
        "delta": delta,
        "estimators": [estimator.label for estimator in estimators],
        "interval": f"95%, jackknife over {units.name}s, Student's t",
        "stopped": gathered.stopped,
        "torch": torch.__version__,
    }


def _images_part(gathered: Pass, delta: float) -> dict[str, Any]:
    part: dict[str, Any] = {}
    if gathered.images.measures(PHYSICAL):
        part["physical"] = physical_of_images(gathered.images, gathered.units)
    if gathered.images.measures(REFERENCE.curve):
        sizes = gathered.images.sizes
        part["reference"] = [reference_of_images(gathered.images, size, gathered.units, delta=delta) for size in sizes]
    return part


def _autoencoder_part(subject: Subject, gathered: Pass, delta: float) -> dict[str, Any]:
    rings, size = subject.rings, gathered.size(subject)
    stats = rings.stats(gathered.shards.digest)
    measured = (gathered.images, rings, stats.std, size, gathered.units)
    curve = rings.low_pass()
    return {
        "label": subject.label,
        "path": str(subject.path),
        "digest": subject.digest,
        "downsample": rings.autoencoder.downsample,
        "latent_channels": rings.autoencoder.latent_channels,
        "latent_size": list(size),
        "normalization": {"source": "its LatentStats" if rings.autoencoder.stats else _MEASURED, **stats.to_metadata()},
        "physical": physical_of_latents(*measured, delta=delta) if gathered.images.measures(PHYSICAL) else [],
        "reference": reference_of_latents(*measured, delta=delta) if gathered.images.measures(REFERENCE.curve) else [],
        "low_pass": low_pass_scores(curve, gathered.units) if curve else {"reason": rings.low_pass_problem},
    }


def _published(name: str) -> dict[str, Any]:
    curves = published_curves()
    if name not in curves:
        raise RecipeError(f"--published {name}: no such curve.", hint=f"There are {', '.join(curves)}.")
    return {"name": name, "label": curves[name].label, "share": list(curves[name].values)}


def _beside(subjects: Sequence[Subject]) -> Path:
    """<stem>.spectrum beside one checkpoint; for several, one folder with their names beside the first."""
    if not subjects:
        return Path("images.spectrum")
    first = subjects[0].path
    names = "-".join(subject.label.replace("/", "-") for subject in subjects)
    return first.parent / f"{first.stem if len(subjects) == 1 else names[:100]}.spectrum"


def _files(result: dict[str, Any], *, folder: Path, plot: bool, kept: bool, json_path: Path | None) -> list[Path]:
    """Write what was asked for; "-" as json_path is standard output."""
    written = []
    if plot:
        for name, figure in figures(result).items():
            for kind in ("png", "svg"):
                write_bytes(folder / f"{name}.{kind}", figure_bytes(figure, kind))
                written.append(folder / f"{name}.{kind}")
    if json_path == Path("-"):
        print(json.dumps(result, allow_nan=False))
        json_path = None
    for path in [*([folder / "spectrum.json"] if kept else []), *([json_path] if json_path else [])]:
        write_json(path, result)
        written.append(path)
    return written
