"""The rows of tables as entries. An image is a range of bytes: of the Arrow file itself, or of a copy of a parquet file's images.

The order of preparation is shuffled, and a row of a parquet file can only be read together with its row group. So each file's
images are copied once, row group after row group, into an Arrow file beside the output, as compressed tars are.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from smtool.data.images.classes import numbered
from smtool.data.images.columns import LabelRule, class_names, image_column, label_column
from smtool.data.images.decoding import Reading, UnusableImage
from smtool.data.images.entries import Entry, FileRange, Place
from smtool.data.images.kinds import LeftOut
from smtool.data.images.splits import own_splits, split_word
from smtool.data.images.table_files import Table, mapped, open_table
from smtool.errors import DataError
from smtool.storage import replacing

if TYPE_CHECKING:
    import pyarrow

_ROWS = 64  # rows of a batch of images; few, so that a batch of large images fits into memory
_MAX_EXPANSION = 100


@dataclass(frozen=True, slots=True)
class NoImage:
    """The place of a row without an image. All reading raises UnusableImage."""

    reason: str
    size: int = 0

    def decoded(self, reading: Reading) -> NoReturn:
        raise UnusableImage(self.reason)

    def head(self, count: int) -> NoReturn:
        raise UnusableImage(self.reason)

    def read(self) -> NoReturn:
        raise UnusableImage(self.reason)


@dataclass(frozen=True)
class TableRows:
    """The entries of tables, sorted by id; fields as of a listing."""

    entries: tuple[Entry, ...]
    class_names: tuple[str, ...]
    unlabelled: str
    left_out: tuple[LeftOut, ...]


def table_rows(files: Mapping[str, Path], rule: LabelRule, scratch: Path) -> TableRows:
    """The rows of parquet and Arrow files, given by name; their ids are NAME/ROW. scratch: folder for copies of images.

    Raises DataError for damaged files, columns that differ between files, several columns of images or labels, and labels of some
    rows only.
    """
    tables = [open_table(path, name) for name, path in sorted(files.items())]
    splits, unused = own_splits({table.name: split_word(table.name) for table in tables}, "files")
    reasons = {other.id: other.reason for other in unused}
    used = [table for table in tables if table.name not in reasons]
    image = _same(used, {table.name: image_column(table.name, table.schema, rule.image_column) for table in used}, "images")
    label, unlabelled = _label_column(used, rule)
    entries: list[Entry] = []
    values: dict[str, Any] = {}
    for table in used:
        rows = [
            Entry(row_id(table, number), place, None, splits.get(table.name))
            for number, place in enumerate(_places(table, image, scratch))
        ]
        entries += rows
        if label is not None:
            given = table.values(label)
            if len(given) != len(rows):
                raise DataError(f"{table.name}: not a complete table ({len(rows)} values of {image}, {len(given)} of {label}).")
            values.update(zip((row.id for row in rows), given, strict=True))
    names: tuple[str, ...] = ()
    if label is not None:
        declared = class_names(used[0].schema, label)
        numbers, names, unlabelled = numbered(values, declared, f"column {label}")
        entries = [Entry(entry.id, entry.place, numbers.get(entry.id), entry.split) for entry in entries]
    left_out = [LeftOut(row_id(table, n), reasons[table.name]) for table in tables if table.name in reasons
                for n in range(table.count())]
    return TableRows(tuple(sorted(entries, key=lambda entry: entry.id)), names, unlabelled, tuple(left_out))


def row_id(table: Table, number: int) -> str:
    return f"{table.name}/{number:08d}"


def named_files(files: Mapping[str, Path], rule: LabelRule) -> Iterator[tuple[str, Path]]:
    """(name in the table, path) of each image that is a file of its own and not stored in a table, in the order of the rows."""
    for name, path in sorted(files.items()):
        table = open_table(path, name)
        column = image_column(name, table.schema, rule.image_column)
        for part in () if table.is_embedded(column) else table.batches(column, _ROWS):
            data, paths = _fields(part)
            if data is None or data.null_count:
                stored = np.zeros(len(part), bool) if data is None else np.asarray(data.is_valid())
                for row in np.flatnonzero(~stored):
                    if text := paths[int(row)].as_py():
                        yield text, path.parent / text


def _label_column(tables: list[Table], rule: LabelRule) -> tuple[str | None, str]:
    """(column, "") or (None, why there are no labels). Raises DataError if the files differ in it or in the names of classes."""
    if rule.labels == "none":
        return None, "--labels none"
    if rule.labels != "auto":
        raise DataError(
            f"--labels {rule.labels} has no effect on tables, whose labels are a column.",
            hint="Leave it out, choose a column with --label-column, or use --labels none.",
        )
    found = {table.name: label_column(table.name, table.schema, rule.label_column) for table in tables}
    column = _same(tables, {name: each for name, (each, _) in found.items()}, "labels")
    if column is not None:
        _same(tables, {table.name: class_names(table.schema, column) for table in tables}, "names of classes")
    return column, found[tables[0].name][1]


def _same(tables: list[Table], found: Mapping[str, Any], what: str) -> Any:
    first = tables[0].name
    for name, value in found.items():
        if value != found[first]:
            raise DataError(
                f"{first} and {name} differ in their {what}: {_said(found[first])} and {_said(value)}.",
                hint="They are not parts of one data set; pass the files of one with a pattern such as 'train-*.parquet'.",
            )
    return found[first]


def _said(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else f"column {value}" if value is not None else "no column"
    return text[:80] or "none"


def _places(table: Table, column: str, scratch: Path) -> Iterator[Place]:
    """The places of a table's images in the order of the rows."""
    copied = not (table.is_arrow and _is_addressable(table, column))
    path = _copy(table, column, scratch) if copied else table.path
    for part, address, size in mapped(path, table.name, "image" if copied else column):
        yield from _places_of(part, address, size, path, table.path.parent)


def _places_of(part: "pyarrow.Array", address: int, size: int, file: Path, folder: Path) -> Iterator[Place]:
    data, paths = _fields(part)
    ranges = None if data is None else _ranges(data, address, size)
    valid = np.zeros(len(part), bool) if data is None else np.asarray(data.is_valid())
    for row in range(len(part)):
        if ranges is not None and valid[row]:
            yield FileRange(str(file), int(ranges[row]), int(ranges[row + 1] - ranges[row]))
        else:
            yield _beside(folder, paths[row].as_py())


def _beside(folder: Path, path: str | None) -> Place:
    """The image file that a row names. Only files in the folder of the table and below are read."""
    if not path:
        return NoImage("the row holds no image")
    if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/") or ":" in path[:2] or "\0" in path:
        return NoImage("its path leads outside the folder of the table")
    file = folder / path.replace("\\", "/")
    return FileRange(str(file), 0, file.stat().st_size) if file.is_file() else NoImage("the file that the row names is missing")


def _fields(part: "pyarrow.Array") -> "tuple[pyarrow.Array | None, pyarrow.Array]":
    """Bytes and paths of a column's images; bytes are None for a column of paths. A null struct has neither."""
    import pyarrow

    if pyarrow.types.is_struct(part.type):
        fields = dict(zip((field.name for field in part.type), part.flatten(), strict=True))
        path = fields.get("path")
        is_text = path is not None and path.type in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view())
        return fields["bytes"], path if is_text else pyarrow.nulls(len(part), pyarrow.string())
    if part.type in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        return None, part
    return part, pyarrow.nulls(len(part), pyarrow.string())


def _ranges(data: "pyarrow.Array", address: int, size: int) -> np.ndarray | None:
    """Offsets in the file at which the images of a mapped column begin and end (rows + 1,); None if it is not mapped as it is."""
    import pyarrow

    if data.type not in (pyarrow.binary(), pyarrow.large_binary()):
        return None
    _, offsets, values = data.buffers()
    if not len(data) or values is None or not values.size:
        return np.zeros(len(data) + 1, np.int64)
    if not address <= values.address <= values.address + values.size <= address + size:  # compressed
        return None
    kind = np.dtype("<i8" if data.type == pyarrow.large_binary() else "<i4")
    rows = np.frombuffer(offsets, kind, len(data) + 1, data.offset * kind.itemsize)
    return rows.astype(np.int64) + (values.address - address)


def _is_addressable(table: Table, column: str) -> bool:
    for part, address, size in mapped(table.path, table.name, column):
        data, _ = _fields(part)
        if data is not None and _ranges(data, address, size) is None:
            return False
    return True


def _copy(table: Table, column: str, scratch: Path) -> Path:
    """Path of an Arrow file in `scratch` with the table's images, uncompressed; made unless an interrupted run made it."""
    import pyarrow

    name = table.name.encode("utf-8", "surrogateescape")
    target = scratch / f"{hashlib.sha256(name).hexdigest()}.images.arrow"
    if target.is_file():
        return target
    kind = pyarrow.struct([("bytes", pyarrow.large_binary()), ("path", pyarrow.large_string())])
    schema = pyarrow.schema([("image", kind)])
    limit, total = _MAX_EXPANSION * max(table.path.stat().st_size, 2**20), 0
    with replacing(target) as aside, pyarrow.OSFile(str(aside), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
        for part in table.batches(column, _ROWS):
            data, paths = _fields(part)
            data = pyarrow.nulls(len(part), pyarrow.large_binary()) if data is None else data.cast(pyarrow.large_binary())
            if (total := total + data.nbytes) > limit:
                raise DataError(f"{table.name}: expands to more than {_MAX_EXPANSION} times its size: a decompression bomb?")
            images = pyarrow.StructArray.from_arrays([data, paths.cast(pyarrow.large_string())], fields=list(kind))
            writer.write_batch(pyarrow.record_batch([images], schema=schema))
    return target
