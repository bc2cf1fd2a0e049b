"""Output of an evaluation: a table on the console, the same table as Markdown or CSV, and JSON with everything."""

import csv
import io
from pathlib import Path
from typing import Any

from smtool.commands.evaluate.result import AnyEvaluation, ReconstructionEvaluation
from smtool.errors import RecipeError
from smtool.evaluation.options import EvalOptions
from smtool.evaluation.scores import Score, score_table
from smtool.inference.sampling import Sampling
from smtool.report.console import Console
from smtool.storage import write_json, write_text

TABLE_KINDS = (".md", ".csv")
COLUMNS = (
    *("what", "score", "value", "half_width_95", "better"),
    *("metric", "extractor", "extractor_sha256", "resize", "codec", "pixels", "rounding", "posterior", "protocol"),
    *("num_images", "images_sha256", "num_reference", "reference_sha256", "seed"),
    *("checkpoint", "step", "weights", "labels", "sampler", "steps", "cfg_scale", "notes"),
    *("image_sizes", "reference_sizes", "channels", "warning"),
    "decoder", "precision",
)
"""Columns of a CSV file, the same for every evaluation."""


def check_table_path(path: Path | None) -> None:
    """Raise RecipeError if the suffix of --table is unknown. Called before anything is computed."""
    if path is not None and path.suffix not in TABLE_KINDS:
        raise RecipeError(f"--table {path}: the name must end in {' or '.join(TABLE_KINDS)}.")


def leave(evaluation: AnyEvaluation, options: EvalOptions, *, title: str, console: Console) -> None:
    """Print the scores, and write the files named in the options."""
    table, sentences = score_table(list(evaluation.scores.values()), title), evaluation.sentences()
    console.print(table)
    for sentence in sentences:
        console.print(sentence)
    if options.json_path is not None:
        write_json(options.json_path, evaluation.to_json())
    if options.table_path is not None:
        markdown = "\n\n".join([table.markdown(), *sentences]) + "\n"
        write_text(options.table_path, _csv(evaluation) if options.table_path.suffix == ".csv" else markdown)


def _csv(evaluation: AnyEvaluation) -> str:
    """CSV with a row for each score: value with all digits, passport, and what was scored."""
    if isinstance(evaluation, ReconstructionEvaluation):
        scored = evaluation.checkpoint
        origin = {"what": scored.path, "checkpoint": scored.sha256, "step": scored.step}
    else:
        origin = {"what": evaluation.samples.source, "pixels": "uint8", **_drawing(evaluation.samples.drawn)}
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**_row(score), **origin} for score in evaluation.scores.values())
    return file.getvalue()


def _row(score: Score) -> dict[str, Any]:
    return {
        **dict(score.passport),
        "score": score.name,
        "value": score.value,
        "half_width_95": score.half_width,
        "better": score.better,
        "notes": "; ".join(score.notes),
    }


def _drawing(drawn: Sampling) -> dict[str, Any]:
    """CSV columns that say how samples were drawn, as far as it is known."""
    columns = {name: getattr(drawn, name) for name in ("checkpoint", "step", "weights", "labels", "rounding", "format")}
    if (sampler := drawn.sampler) is not None:
        columns |= {"sampler": sampler.kind, "steps": sampler.steps, "cfg_scale": sampler.cfg_scale}
        columns["precision"] = sampler.precision
    if drawn.decoder is not None:
        columns["decoder"] = drawn.decoder.digest
    return columns
