"""report.html of a training run: what its folder holds, on one page. Written again at every validation, whole or not at all."""

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

from smtool.commands.train.report_panels import band_panels, latest, loss_panels, progress_panels, score_panels
from smtool.commands.train.run_folder import RunFolder
from smtool.report.curves import Panel, curves_figure
from smtool.report.html import Page
from smtool.report.trackers import read_metrics

_STAGES = 5
_ABOUT = {
    "samples": "The first ones drawn, none chosen; the same noise and classes at every step.",
    "reconstructions": "Rows: input, reconstruction from the posterior's mean, their difference twice enlarged around grey.",
}


def write_report(folder: RunFolder) -> Path:
    """Write report.html from metrics.jsonl, samples/, recipe.toml and environment.json; nothing is computed anew."""
    rows = read_metrics(folder.metrics)
    tables = tomllib.loads((folder.path / "resolved.toml").read_text(encoding="utf-8"))
    environment = json.loads((folder.path / "environment.json").read_text())
    diffusion = "latents" in tables
    page = Page(f"{folder.path.name}: {'a transformer on latents' if diffusion else 'an autoencoder'}")
    page.text(_state(folder, rows, tables))
    for sentence in "\n".join(environment.get("facts", ())).replace("\n  ", "; ").splitlines():      # an indented line goes on
        page.text(f"{sentence[0].upper()}{sentence[1:]}.")
    if losses := loss_panels(rows):
        page.section("Losses")
        _figure(page, losses, "Every term of the loss, before its weight, against training steps. The last value stands above.")
    if bands := band_panels(rows):
        _figure(page, bands, _about_bands(rows), columns=4)
    if scores := score_panels(rows):
        page.section("Validation")
        _figure(page, scores, _protocol(tables, diffusion=diffusion))
    _pictures(page, folder.path / "samples", tables)
    if progress := progress_panels(rows):
        page.section("Progress")
        _figure(page, progress, "Learning rates, norms of gradients, speed.")
    page.section("Recipe")
    page.text("As it ran, with every --set.")
    page.commands(*(folder.path / "resolved.toml").read_text(encoding="utf-8").splitlines())
    page.section("Passport")
    page.commands(*_passport(folder, tables, environment))
    page.section("Go on")
    page.commands(*_commands(folder, diffusion=diffusion))
    page.write(folder.report)
    return folder.report


def _state(folder: RunFolder, rows: Sequence[Mapping[str, Any]], tables: Mapping[str, Any]) -> str:
    """How far the run has come, and what its last rows say."""
    step = rows[-1]["step"] if rows else 0
    if (folder.path / "FAILED").is_file():
        state = f"Failed: {(folder.path / 'FAILED').read_text().strip()}"
    elif folder.is_done:
        state = f"Finished: {(folder.path / 'DONE').read_text().strip()}."
    else:
        state = f"Under way, or stopped: step {step:,} of {tables['steps']:,} when this page was written."
    speed = latest(rows, "images_per_second")
    return state + (f" Last speed: {speed:,.0f} images/s." if speed else "")


def _pictures(page: Page, samples: Path, tables: Mapping[str, Any]) -> None:
    """The last picture of each kind; of samples also how they came about."""
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
            caption = f"How they came about: the first row at steps {steps}, from top to bottom; the same noise in each."
            page.pixels(_stages(list(alike.values()), count), alt=f"samples at steps {steps}", caption=caption)


def _spread(paths: Sequence[Path]) -> list[Path]:
    """A few from the first to the last, evenly."""
    return [paths[index] for index in sorted({k * (len(paths) - 1) // (_STAGES - 1) for k in range(_STAGES)})]


def _stages(grids: Sequence[Tensor], count: int) -> Tensor:
    """The first row of each grid of `count` images (see `image_grid`), one below the other."""
    rows = -(-count // math.ceil(math.sqrt(count)))
    tall = (grids[0].shape[1] + 1) // rows
    line = torch.full((3, 1, grids[0].shape[2]), 255, dtype=torch.uint8)
    return torch.cat([part for grid in grids for part in (line, grid[:, : tall - 1])][1:], dim=1)


def _step(path: Path) -> int:
    return int(path.stem.split("-", 1)[0])


def _read(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _figure(page: Page, panels: Sequence[Panel], caption: str, *, columns: int = 3) -> None:
    titles = "; ".join(panel.title for panel in panels)
    page.figure(curves_figure(panels, columns=columns), alt=f"{caption} Last values: {titles}.", caption=caption)


def _protocol(tables: Mapping[str, Any], *, diffusion: bool) -> str:
    """What the validation scores are measured on: they compare within this run, not across protocols."""
    table = tables["validation"]
    if not diffusion:
        weights = "averaged weights" if tables.get("ema") else "the last weights"
        return f"On at most {table['num_images']} validation images, by the posterior's mode and {weights}."
    sampler = tables["sampler"]
    return (
        f"{table['num_images']} samples ({sampler['kind']}, {sampler['steps']} steps, guidance {sampler['cfg_scale']:g}) against "
        f"as many training images, by {table['features']} features. At so small a number the Frechet distance is larger than it "
        "will be at 50,000, the kernel distance is not; `smtool eval` measures both with intervals."
    )


def _about_bands(rows: Sequence[Mapping[str, Any]]) -> str:
    about = "Squared error per DCT coefficient in four rings of latent frequency, from the lowest (with the mean) to the corners."
    if latest(rows, "floor_band1") is None:
        return about
    return (
        f"{about} Dashed: the floor of a perfect network if latents were Gaussian and their frequencies independent; what is far "
        "above it is still being learnt, what is below uses ties between frequencies."
    )


def _passport(folder: RunFolder, tables: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """What a reader must know to compare this run with another."""
    checkpoints = ", ".join(str(int(path.name)) for path in sorted(folder.checkpoints.glob("[0-9]*")))
    device = f"{environment['device']}{', ' + environment['gpu'] if environment['gpu'] else ''}"
    summary = {
        "command": shlex.join(environment["command"]),
        "seed": tables["seed"],
        "precision": tables["precision"],
        "shared weights": f"average, decay {tables['ema']['decay']:g}" if tables.get("ema") else "last",
        "checkpoints": checkpoints or "none",
        "device": f"{device}; {environment['ranks']} rank(s) of {environment['threads']} thread(s)",
        "system": f"smtool {environment['smtool']}, Python {environment['python']}, {environment['system']}",
        "packages": ", ".join(f"{name} {version}" for name, version in environment["packages"].items() if version),
        **environment.get("sources", {}),
    }
    return [f"{name:<15} {value}" for name, value in summary.items()]


def _commands(folder: RunFolder, *, diffusion: bool) -> list[str]:
    path = folder.path
    if diffusion:
        return [f"smtool sample {path} --num-images 64", f"smtool eval {path} --num-images 512"]
    return [
        f"smtool spectrum {path} --plot",
        f"smtool eval {path} --psnr --ssim --features random",
        f"smtool train-dit recipes/sit.toml --set latents.autoencoder={path}",
    ]
