"""Tables in parquet and Arrow files, read in batches by pyarrow. pyarrow is optional: without it, DataError names the extra."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smtool.errors import DataError

if TYPE_CHECKING:
    import pyarrow

TABLE_SUFFIXES = (".parquet", ".arrow")
_ARROW_FILE = b"ARROW1"  # begins an Arrow file; otherwise it is a stream
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_VALUES = 65536  # values of a plain column in a batch


@dataclass(frozen=True)
class Table:
    """A file of rows. name: in ids and messages; columns: their names and types."""

    name: str
    path: Path
    schema: "pyarrow.Schema"

    @property
    def is_arrow(self) -> bool:
        return self.path.suffix.lower() == ".arrow"

    def batches(self, column: str, rows: int) -> "Iterator[pyarrow.Array]":
        """The values of a column in parts: of an Arrow file as they are stored, mapped from the file; otherwise of `rows` rows.

        Memory holds one part. Raises DataError if the file is damaged.
        """
        with _read(self.name):
            if self.is_arrow:
                with _opened_arrow(self.path) as (reader, _):
                    for batch in reader:
                        yield _valid(batch.column(column))
            else:
                with _parquet(self.path) as file:
                    for batch in file.iter_batches(rows, columns=[column], use_threads=False):
                        yield _valid(batch.column(0))

    def values(self, column: str) -> list[Any]:
        """All values of a column as Python objects. Raises DataError if the file is damaged."""
        parts = [part.to_pylist() for part in self.batches(column, _VALUES)]
        return [value for part in parts for value in part]

    def count(self) -> int:
        """Number of rows."""
        if self.is_arrow:
            with _read(self.name), _opened_arrow(self.path) as (reader, _):
                return sum(batch.num_rows for batch in reader)
        with _read(self.name), _parquet(self.path) as file:
            return int(file.metadata.num_rows)

    def is_embedded(self, column: str) -> bool:
        """Whether the statistics of a parquet file say that every row of a column holds bytes, none a path."""
        if self.is_arrow or "string" in str(self.schema.field(column).type).split("<")[0]:
            return False
        with _read(self.name), _parquet(self.path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
            chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
            nulls = [each.statistics for each in chunks if each.path_in_schema in (column, f"{column}.bytes")]
            return all(each is not None and each.has_null_count and each.null_count == 0 for each in nulls)


def open_table(path: Path, name: str) -> Table:
    """Open a parquet or Arrow file. Raises DataError if it is damaged, incomplete or has two columns of one name."""
    _refuse_without_pyarrow(name)
    with _read(name):
        if path.suffix.lower() == ".arrow":
            with _opened_arrow(path) as (reader, _):
                schema = reader.schema
        else:
            with _parquet(path) as file:
                schema = file.schema_arrow
        _decode_names(schema)
    if len(set(schema.names)) < len(schema.names):
        raise DataError(f"{name} has several columns of the same name.", hint=f"Its columns are {', '.join(schema.names)}.")
    return Table(name, path, schema)


def _decode_names(fields: "Iterable[pyarrow.Field]") -> None:
    """Raise UnicodeDecodeError for a name, of a column or inside one, that is not UTF-8."""
    from pyarrow import types

    for field in fields:
        field.name.encode()  # pyarrow decodes it here
        if types.is_struct(field.type):
            _decode_names(field.type)


def mapped(path: Path, name: str, column: str) -> "Iterator[tuple[pyarrow.Array, int, int]]":
    """Parts of a column of an Arrow file, each with the address at which the file is mapped, and the file's size."""
    with _read(name), _opened_arrow(path) as (reader, whole):
        for batch in reader:
            yield _valid(batch.column(column)), whole.address, whole.size


def _valid(array: "pyarrow.Array") -> "pyarrow.Array":
    array.validate(full=True)  # offsets in a damaged file could lead outside its memory
    return array


@contextmanager
def _read(name: str) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError, KeyError, EOFError) as error:
        said = " ".join(str(error).split())[:160].rstrip(".")
        raise DataError(
            f"{name}: not a complete table ({said}).", hint="It may be truncated; download or copy it again."
        ) from error


@contextmanager
def _parquet(path: Path) -> "Iterator[Any]":
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
        yield file


@contextmanager
def _opened_arrow(path: Path) -> "Iterator[tuple[Any, pyarrow.Buffer]]":
    """Iterator over the record batches of an Arrow file or stream, with its schema; and the mapped file."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as file:
        whole = file.read_buffer()
        head, tail = whole.slice(0, len(_ARROW_FILE)).to_pybytes(), whole.slice(max(0, whole.size - 8)).to_pybytes()
        if head == _ARROW_FILE:
            yield _Batches(pyarrow.ipc.open_file(whole)), whole
            return
        if tail != _END_OF_STREAM:
            raise EOFError("it ends without the mark that ends every Arrow stream")
        yield pyarrow.ipc.open_stream(whole), whole


@dataclass(frozen=True)
class _Batches:
    """The record batches of an Arrow file, which pyarrow reads by number, as an iterator."""

    reader: Any

    @property
    def schema(self) -> "pyarrow.Schema":
        return self.reader.schema

    def __iter__(self) -> "Iterator[pyarrow.RecordBatch]":
        return map(self.reader.get_batch, range(self.reader.num_record_batches))


def _refuse_without_pyarrow(name: str) -> None:
    try:
        import pyarrow.ipc
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"{name} is a table, which pyarrow reads, and pyarrow is not installed here.", hint="pip install 'smtool[parquet]'"
        ) from error
