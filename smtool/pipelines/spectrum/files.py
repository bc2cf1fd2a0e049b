"""What `smtool spectrum` writes: report.html, its figures and pictures as files, and spectrum.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smtool.pipelines.spectrum.figures import figures
from smtool.pipelines.spectrum.page import report_page
from smtool.pipelines.spectrum.pictures import Picture
from smtool.report.grids import png_bytes
from smtool.report.plots import figure_bytes
from smtool.storage import write_bytes, write_json


def write_files(
    result: dict[str, Any],
    pictures: Mapping[str, Mapping[str, Picture]],
    *,
    folder: Path,
    plot: bool,
    kept: bool,
    json_path: Path | None,
) -> list[Path]:
    """Write what was asked for, and name it; "-" as json_path is standard output. pictures: by label, or "images", and name."""
    written = _drawn(result, pictures, folder) if plot else []
    if json_path == Path("-"):
        print(json.dumps(result, allow_nan=False))
        json_path = None
    for path in [*([folder / "spectrum.json"] if kept else []), *([json_path] if json_path else [])]:
        write_json(path, result)
        written.append(path)
    return written


def _drawn(result: dict[str, Any], pictures: Mapping[str, Mapping[str, Picture]], folder: Path) -> list[Path]:
    drawn = figures(result)
    files = {f"{name}.{kind}": figure_bytes(figure, kind) for name, figure in drawn.items() for kind in ("png", "svg")}
    for label, named in pictures.items():
        for name, picture in named.items():
            files[f"{label.replace('/', '-')}.{name}.png"] = png_bytes(picture.image)
    for name, data in files.items():
        write_bytes(folder / name, data)
    report_page(result, pictures, drawn).write(folder / "report.html")
    return [folder / name for name in (*files, "report.html")]
