"""report.html of a training run: one page with the contents of its folder, rewritten atomically at every validation."""

import json
import math
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smtool.commands.train.comparison import FILE, Comparison
from smtool.commands.train.report_panels import band_panels, latest, loss_panels, progress_panels, score_panels
from smtool.commands.train.run_folder import RunFolder
from smtool.report.curves import Panel, curves_figure
from smtool.report.html import Page
from smtool.report.trackers import read_metrics
from smtool.storage import parsing

_STAGES = 5
_ABOUT = {
    "before-and-after": "Low-passed images, and decodings of equally low-passed latents before and after. Below: PSNR.",
    "spectra": "Spectra of images and of the latents before and after.",
    "samples": "The first samples drawn, without selection; the same noise and classes at every step.",
    "reconstructions": "Rows: input, reconstruction from the posterior's mean, and twice their difference, on grey.",
}


def write_report(folder: RunFolder) -> Path:
    """Write report.html from metrics.jsonl, samples/, resolved.toml and environment.json, and return its path.

    Raises CheckpointError if one of them is damaged.
    """
    with parsing(folder.path, hint="A file of this run is damaged: restore it, or start the run again with --fresh."):
        page = _page(folder)
    page.write(folder.report)
    return folder.report


def _page(folder: RunFolder) -> Page:
    rows = read_metrics(folder.metrics)
    tables = tomllib.loads((folder.path / "resolved.toml").read_text(encoding="utf-8"))
    environment = json.loads((folder.path / "environment.json").read_text())
    diffusion, joint = "latents" in tables, "end_to_end" in tables
    alone = "a transformer on latents" if diffusion else "an autoencoder"
    page = Page(f"{folder.path.name}: {'an autoencoder and a transformer, trained together' if joint else alone}")
    page.text(_state(folder, rows, tables))
    # an indented line continues the line before it
    for sentence in "\n".join(environment.get("facts", ())).replace("\n  ", "; ").splitlines():
        page.text(f"{sentence[0].upper()}{sentence[1:]}.")
    if (folder.path / FILE).is_file():
        found = Comparison.model_validate_json((folder.path / FILE).read_text())
        page.section("Before and after")
        page.text(f"The original is {found.original}. {found.line()[:1].upper()}{found.line()[1:]}.")
        page.table(found.table())
    if losses := loss_panels(rows):
        page.section("Losses")
        _figure(page, losses, "Every term of the loss, without its weight, against training steps. Titles show the last value.")
    if bands := band_panels(rows):
        _figure(page, bands, _about_bands(rows), columns=4)
    if scores := score_panels(rows):
        page.section("Validation")
        _figure(page, scores, _protocol(tables, diffusion=diffusion))
    _pictures(page, folder.path / "samples", tables)
    if progress := progress_panels(rows):
        page.section("Progress")
        _figure(page, progress, "Learning rates, gradient norms, speed.")
    page.section("Recipe")
    page.text("The recipe of this run, including all changes by --set.")
    page.commands(*(folder.path / "resolved.toml").read_text(encoding="utf-8").splitlines())
    page.section("Environment")
    page.commands(*_passport(folder, tables, environment))
    page.section("Next commands")
    page.commands(*_commands(folder.path, diffusion=diffusion))
    if joint:
        page.commands(*_commands(folder.autoencoder, diffusion=False))
    return page


def _state(folder: RunFolder, rows: Sequence[Mapping[str, Any]], tables: Mapping[str, Any]) -> str:
    """State of the run and its last speed, as a sentence."""
    step = rows[-1]["step"] if rows else 0
    if (folder.path / "FAILED").is_file():
        state = f"Failed: {(folder.path / 'FAILED').read_text().strip()}"
    elif folder.is_done:
        state = f"Finished: {(folder.path / 'DONE').read_text().strip()}."
    else:
        state = f"Running or stopped: at step {step:,} of {tables['steps']:,} when this page was written."
    speed = latest(rows, "images_per_second")
    return state + (f" Last speed: {speed:,.0f} images/s." if speed else "")


def _pictures(page: Page, samples: Path, tables: Mapping[str, Any]) -> None:
    """Add the last picture of each kind; of samples, also a picture of several steps."""
    by_name: dict[str, list[Path]] = {}
    for path in sorted(samples.glob("*.png")):
        by_name.setdefault(path.stem.split("-", 1)[1], []).append(path)
    for name, paths in by_name.items():
        page.section(name.capitalize())
        last = _read(paths[-1])
        caption = f"Step {_step(paths[-1]):,}. {_ABOUT.get(name, '')}"
        page.pixels(last, alt=f"{name} at step {_step(paths[-1])}", caption=caption)
        grids = {_step(path): _read(path) for path in _spread(paths)} if name == "samples" else {}
        alike = {step: grid for step, grid in grids.items() if grid.shape == last.shape}      # validation.grid may have changed
        if len(alike) > 1:
            count = min(tables["validation"]["grid"], tables["validation"]["num_images"])
            steps = ", ".join(f"{step:,}" for step in alike)
            caption = f"Progress of the first row: steps {steps} from top to bottom, always from the same noise."
            page.pixels(_stages(list(alike.values()), count), alt=f"samples at steps {steps}", caption=caption)


def _spread(paths: Sequence[Path]) -> list[Path]:
    """At most _STAGES paths, evenly spaced from the first to the last."""
    return [paths[index] for index in sorted({k * (len(paths) - 1) // (_STAGES - 1) for k in range(_STAGES)})]


def _stages(grids: Sequence[Tensor], count: int) -> Tensor:
    """The first row of each grid of `count` images (see `image_grid`), stacked vertically."""
    rows = -(-count // math.ceil(math.sqrt(count)))
    tall = (grids[0].shape[1] + 1) // rows
    line = torch.full((3, 1, grids[0].shape[2]), 255, dtype=torch.uint8)
    return torch.cat([part for grid in grids for part in (line, grid[:, : tall - 1])][1:], dim=1)


def _step(path: Path) -> int:
    return int(path.stem.split("-", 1)[0])


def _read(path: Path) -> Tensor:
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _figure(page: Page, panels: Sequence[Panel], caption: str, *, columns: int = 3) -> None:
    titles = "; ".join(panel.title for panel in panels)
    page.figure(curves_figure(panels, columns=columns), alt=f"{caption} Last values: {titles}.", caption=caption)


def _protocol(tables: Mapping[str, Any], *, diffusion: bool) -> str:
    """Caption of the validation scores: images, weights and sampler they were measured with."""
    table = tables["validation"]
    if not diffusion:
        weights = "averaged weights" if tables.get("ema") else "the last weights"
        return f"On at most {table['num_images']} validation images, with the posterior's mode and {weights}."
    sampler = tables["sampler"]
    return (
        f"{table['num_images']} samples ({sampler['kind']}, {sampler['steps']} steps, guidance {sampler['cfg_scale']:g}) against "
        f"as many training images, on {table['features']} features. With so few images the Frechet distance is larger than with "
        "50,000; the kernel distance is not biased. `smtool eval` measures both with intervals."
    )


def _about_bands(rows: Sequence[Mapping[str, Any]]) -> str:
    about = "Squared error per DCT coefficient in four bands of latent frequency, from the lowest (with the mean) to the highest."
    if latest(rows, "floor_band1") is None:
        return about
    return (
        f"{about} Dashed: loss of an optimal network if latents were Gaussian with independent frequencies. A band far above it "
        "is not learnt yet; a band below it uses dependencies between frequencies."
    )


def _passport(folder: RunFolder, tables: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """Lines with everything needed to compare this run with another: command, seed, device, versions."""
    checkpoints = ", ".join(str(int(path.name)) for path in sorted(folder.checkpoints.glob("[0-9]*")))
    device = f"{environment['device']}{', ' + environment['gpu'] if environment['gpu'] else ''}"
    summary = {
        "command": shlex.join(environment["command"]),
        "seed": tables["seed"],
        "precision": tables["precision"],
        "exported weights": f"average, decay {tables['ema']['decay']:g}" if tables.get("ema") else "last",
        "checkpoints": checkpoints or "none",
        "device": f"{device}; {environment['ranks']} rank(s) of {environment['threads']} thread(s)",
        "system": f"smtool {environment['smtool']}, Python {environment['python']}, {environment['system']}",
        "packages": ", ".join(f"{name} {version}" for name, version in environment["packages"].items() if version),
        **environment.get("sources", {}),
    }
    return [f"{name:<17} {value}" for name, value in summary.items()]


def _commands(path: Path, *, diffusion: bool) -> list[str]:
    if diffusion:
        return [f"smtool sample {path} --num-images 64", f"smtool eval {path} --num-images 512"]
    return [
        f"smtool spectrum {path} --plot",
        f"smtool eval {path} --psnr --ssim --features random",
        f"smtool train-dit recipes/sit.toml --set latents.autoencoder={path}",
    ]
