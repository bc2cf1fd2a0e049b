"""What an evaluation leaves behind: a table on the console, the same as Markdown or CSV to paste, and JSON with everything."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from smtool import __version__
from smtool.errors import RecipeError
from smtool.evaluation.options import EvalOptions
from smtool.evaluation.scores import SamplePassport, Score, score_table
from smtool.report.console import Console
from smtool.storage import write_json, write_text

TABLE_KINDS = (".md", ".csv")
_PASSPORT = (
    *("metric", "extractor", "extractor_sha256", "resize", "codec", "pixels", "rounding", "posterior", "protocol"),
    *("num_images", "images_sha256", "num_reference", "reference_sha256", "seed"),
)

_CHECKPOINT = ("checkpoint", "step", "weights", "labels")


def check_table_path(path: Path | None) -> None:
    """Before anything is computed."""
    if path is not None and path.suffix not in TABLE_KINDS:
        raise RecipeError(f"--table {path}: the name must end in {' or '.join(TABLE_KINDS)}.")


def leave(
    scores: Sequence[Score],
    options: EvalOptions,
    summary: Mapping[str, Any],
    *,
    title: str,
    said: Sequence[str],
    console: Console,
) -> dict[str, Any]:
    """Show the scores, write the files that are asked, and return what the JSON holds.

    summary: of both sides, by key of the JSON. said: sentences below the table.
    """
    computed = computation(options.device)
    result = {
        "smtool": __version__,
        **summary,
        "computed": computed,
        "scores": {score.name: score.to_json() for score in scores},
    }
    sentences = [*said, f"Computed in {computed['precision']} on {computed['device']}."]
    table = score_table(scores, title)
    console.print(table)
    for sentence in sentences:
        console.print(sentence)
    if options.json_path is not None:
        write_json(options.json_path, result)
    if options.table_path is not None:
        markdown = "\n\n".join([table.markdown(), *sentences]) + "\n"
        write_text(options.table_path, _csv(scores, summary) if options.table_path.suffix == ".csv" else markdown)
    return result


def computation(device: str) -> dict[str, str]:
    """How networks were computed: weights and sums are float32 everywhere, but a GPU may round the factors of convolutions."""
    rounded = device.startswith("cuda") and torch.backends.cudnn.allow_tf32
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "precision": "float32, convolutions in TF32" if rounded else "float32",
        "torch": torch.__version__,
    }


def _csv(scores: Sequence[Score], summary: Mapping[str, Any]) -> str:
    """A row for each score: all digits, and its passport in columns that are the same for every evaluation."""
    scored = summary.get("checkpoint") or summary["samples"]
    checkpoint = {"what": scored.get("path") or scored["source"], "checkpoint": scored["sha256"], "step": scored.get("step")}
    file = io.StringIO()
    rows = [_row(score, checkpoint) for score in scores]
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _row(score: Score, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    passport = asdict(score.passport)
    if isinstance(score.passport, SamplePassport):      # how they were drawn, as far as that is known
        drawn = passport.pop("sampling")
        checkpoint = {"what": checkpoint["what"], **{name: drawn.get(name) for name in _CHECKPOINT}}
        sampler = drawn.get("sampler", {})
        passport |= {"posterior": None, "pixels": "uint8", "rounding": drawn.get("rounding")}
    else:
        sampler = {}
    return {
        "what": checkpoint["what"],
        "score": score.name,
        "value": score.value,
        "half_width_95": score.half_width,
        "better": score.better,
        **{name: passport[name] for name in _PASSPORT},
        **{name: checkpoint.get(name) for name in _CHECKPOINT},
        "sampler": sampler.get("kind"),
        **{name: sampler.get(name) for name in ("steps", "cfg_scale")},
        "notes": "; ".join(score.notes),
    }
