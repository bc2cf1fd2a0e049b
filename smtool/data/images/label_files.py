"""Files with the labels of the images beside them: Hugging Face's metadata files, and dataset.json of StyleGAN, EDM and REPA."""

import csv
import io
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from smtool.data.images.columns import LabelRule, class_names, label_column, label_key
from smtool.data.images.decoding import UnusableImage
from smtool.data.images.entries import Stored
from smtool.errors import DataError

LABEL_FILES = tuple(f"{stem}.{suffix}" for stem in ("metadata", "labels") for suffix in ("csv", "jsonl", "parquet"))
STYLEGAN = "dataset.json"
_CARD = b'"smtool dataset '
_NAME = "file_name"


@dataclass(frozen=True)
class LabelFile:
    """The labels that a file states: number, name or None by the image's path in the source.

    class_names: by number, where the file declares them; reason: why it states no labels, or "".
    """

    name: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    reason: str = ""


def is_label_file(name: str) -> bool:
    """Whether a file's name is one that label files have."""
    return posixpath.basename(name).lower() in (*LABEL_FILES, STYLEGAN)


def read_label_file(name: str, place: Stored, rule: LabelRule) -> LabelFile:
    """Read a label file. name: its path in the source. Raises DataError if it is damaged or gives an image two labels."""
    try:
        data = place.read()
    except UnusableImage as error:
        raise DataError(f"{name}: {error}.") from error
    if name.lower().endswith(STYLEGAN):
        return _stylegan(name, data)
    if name.lower().endswith(".parquet"):
        return _parquet(name, data, rule)
    keys, rows = _csv(name, data) if name.lower().endswith(".csv") else _jsonl(name, data)
    images, reason = _name_key(name, keys)
    column, why = label_key(name, [key for key in keys if key != images], rule.label_column) if images else (None, reason)
    if images is None or column is None:
        return LabelFile(name, reason=why)
    return LabelFile(name, _by_image(name, ((row.get(images), row.get(column)) for row in rows)))


def _stylegan(name: str, data: bytes) -> LabelFile:
    """{"labels": [[path, number], ...]}, or a mapping instead of the list; null where there are no labels."""
    if _CARD in data[:256]:
        return LabelFile(name, reason="a card of smtool")
    content = _parsed(name, data)
    if not isinstance(content, dict) or "labels" not in content:
        return LabelFile(name, reason=f"{name} has no key labels, as StyleGAN's file of this name does")
    labels = content["labels"]
    if labels is None:
        return LabelFile(name, reason=f"{name} says that the images have no labels")
    pairs = list(labels.items()) if isinstance(labels, dict) else labels
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise DataError(
            f"{name}: labels is not a list of [path, number] pairs.", hint="Make it again with StyleGAN's dataset_tool.py."
        )
    if any(isinstance(label, list | float) for _, label in pairs):
        return LabelFile(name, reason=f"the labels of {name} are vectors, not classes")
    return LabelFile(name, _by_image(name, pairs))


def _csv(name: str, data: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        rows = list(reader)
        return [key for key in reader.fieldnames or () if key], rows
    except (csv.Error, ValueError) as error:
        raise DataError(f"{name}: not a CSV file in UTF-8 ({error}).") from error


def _jsonl(name: str, data: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    rows = []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            row = _parsed(f"{name}, line {number}", line)
            if not isinstance(row, dict):
                raise DataError(f"{name}, line {number}: not a JSON object.")
            rows.append(row)
    return list(dict.fromkeys(key for row in rows for key in row)), rows


def _parquet(name: str, data: bytes, rule: LabelRule) -> LabelFile:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{name} may hold the labels; pyarrow reads it, and pyarrow is not installed here.",
            hint="pip install 'smtool[parquet]', or prepare the images without it: --labels none or --labels folders.",
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data)) as file:
            schema = file.schema_arrow
            images, reason = _name_key(name, schema.names)
            column, why = label_column(name, schema, rule.label_column) if images else (None, reason)
            if images is None or column is None:
                return LabelFile(name, reason=why)
            table = file.read(columns=[images, column], use_threads=False)
            pairs = zip(table.column(images).to_pylist(), table.column(column).to_pylist(), strict=True)
            return LabelFile(name, _by_image(name, pairs), class_names(schema, column))
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{name}: not a complete table ({' '.join(str(error).split())[:160]}).") from error


def _name_key(name: str, keys: Iterable[str]) -> tuple[str | None, str]:
    """The column with the images' paths, or (None, why there is none)."""
    keys = list(keys)
    named = [key for key in keys if key == _NAME] or [key for key in keys if key.endswith(f"_{_NAME}")]
    if len(named) == 1:
        return named[0], ""
    return None, f"{name} has {'several columns of file names' if named else f'no column {_NAME}'}"


def _by_image(name: str, pairs: Iterable[Any]) -> dict[str, Any]:
    labels: dict[str, Any] = {}
    for path, label in pairs:
        if not isinstance(path, str) or not path:
            raise DataError(f"{name}: {str(path)[:40]!r} is not the path of an image.")
        image = posixpath.normpath(posixpath.join(posixpath.dirname(name), path.replace("\\", "/")))
        if image.startswith(("/", "..")) or re.match(r"[A-Za-z]+:", image):
            raise DataError(f"{name}: the path {path!r} leads outside the source.", hint="Give paths relative to the file.")
        if image in labels and labels[image] != label:
            raise DataError(f"{name} gives {path} two labels: {str(labels[image])[:40]} and {str(label)[:40]}.")
        labels[image] = label
    return labels


def _parsed(where: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}).", hint="Repair the file, or use --labels none.") from error
