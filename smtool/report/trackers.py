"""Logging of a run's numbers and pictures: to metrics.jsonl and samples/, and optionally to TensorBoard and Weights & Biases."""

import importlib.util
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from smtool.errors import DiskError, RecipeError
from smtool.storage import write_bytes, write_text


class Trackers:
    """Logs numbers and pictures of one run. Used on rank 0 only.

    tensorboard: True requires it, False turns it off, None uses it if it is installed. wandb: name of a project, or None.
    resume_step: step of the checkpoint that the run resumes from, 0 for a new run. Rows logged after it are dropped, so that no
    step is logged twice.
    """

    def __init__(self, folder: Path, *, tensorboard: bool | None = None, wandb: str | None = None, resume_step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._samples = folder / "samples"
        self._metrics = folder / "metrics.jsonl"
        drop_rows_after(self._metrics, resume_step)
        self._rows = self._metrics.open("a", encoding="utf-8", buffering=1)      # line-buffered: each row is written at once
        self._tensorboard = _tensorboard_writer(folder, tensorboard, resume_step)
        self._wandb = None if wandb is None else _wandb_run(folder, wandb)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log one row: the step and its values. Raises DiskError if it cannot be written."""
        try:
            self._rows.write(metrics_row(step, values) + "\n")
        except OSError as error:
            message = f"{self._metrics}: could not be written ({error.strerror})."
            raise DiskError(message, hint="Free some space and run the same command again.") from error
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)

    def image(self, step: int, name: str, image: Tensor) -> Path:
        """Write a picture, uint8 (3, H, W), to samples/<step>-<name>.png and to the other trackers; return its path."""
        pixels = image.detach().cpu().permute(1, 2, 0).contiguous().numpy()
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        path = self._samples / f"{step:08d}-{name.replace('/', '-')}.png"
        write_bytes(path, png.getvalue())
        if self._tensorboard is not None:
            self._tensorboard.add_image(name, image, step)
        if self._wandb is not None:
            import wandb

            self._wandb.log({name: wandb.Image(str(path))}, step=step)
        return path

    def close(self) -> None:
        self._rows.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def metrics_row(step: int, values: Mapping[str, float]) -> str:
    """One line of metrics.jsonl. JSON has no NaN or infinity: such a value is null, and the key `not_finite` holds it as text."""
    numbers = {name: float(value) for name, value in values.items()}
    row: dict[str, Any] = {"step": step} | {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    if strange := {name: str(value) for name, value in numbers.items() if not math.isfinite(value)}:
        row["not_finite"] = strange
    return json.dumps(row, allow_nan=False)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, up to the first damaged or incomplete line; [] if the file does not exist."""
    rows = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not _is_row(row):
            break
        rows.append(row)
    return rows


def _is_row(row: Any) -> bool:
    """Whether a value has the form that `metrics_row` writes."""
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return False
    others = [value for name, value in row.items() if name not in ("step", "not_finite")]
    return all(value is None or (type(value) in (int, float) and math.isfinite(value)) for value in others)


def drop_rows_after(path: Path, step: int) -> None:
    """Remove the rows after a step, and incomplete lines; step 0 removes all rows. The file is replaced atomically."""
    if not path.is_file():
        return
    kept = [row for row in read_metrics(path) if step > 0 and row["step"] <= step]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    if text.encode() != path.read_bytes():
        write_text(path, text)


def _tensorboard_writer(folder: Path, wanted: bool | None, resume_step: int) -> Any:
    if wanted is None:
        wanted = importlib.util.find_spec("tensorboard") is not None
    if not wanted:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RecipeError(
            "The recipe turns TensorBoard on, but it is not installed.",
            hint="pip install 'smtool[tensorboard]', or remove it from the recipe: metrics.jsonl is always written.",
        ) from error
    return SummaryWriter(str(folder), purge_step=resume_step + 1)


def _wandb_run(folder: Path, project: str) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise RecipeError(
            f"The recipe turns Weights & Biases on (project {project!r}), but it is not installed.",
            hint="pip install 'smtool[wandb]', or remove it from the recipe: metrics.jsonl is always written.",
        ) from error
    return wandb.init(project=project, name=folder.name, id=folder.name, dir=str(folder), resume="allow")
