"""What `smtool spectrum` writes: figures, the report's page, and spectrum.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smtool.pipelines.spectrum.figures import figures
from smtool.pipelines.spectrum.pictures import Picture
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
    """Write what was asked for, and name it; "-" as json_path is standard output. pictures: by autoencoder and name."""
    written = _drawn(result, pictures, folder) if plot else []
    if json_path == Path("-"):
        print(json.dumps(result, allow_nan=False))
        json_path = None
    for path in [*([folder / "spectrum.json"] if kept else []), *([json_path] if json_path else [])]:
        write_json(path, result)
        written.append(path)
    return written


def _drawn(result: dict[str, Any], pictures: Mapping[str, Mapping[str, Picture]], folder: Path) -> list[Path]:
    written = []
    for name, figure in figures(result).items():
        for kind in ("png", "svg"):
            write_bytes(folder / f"{name}.{kind}", figure_bytes(figure, kind))
            written.append(folder / f"{name}.{kind}")
    return written
