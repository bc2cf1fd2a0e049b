"""Which columns of a table hold the image and the label. By declared features where there are any, otherwise by type and name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from smtool.errors import DataError, RecipeError

if TYPE_CHECKING:
    import pyarrow

LabelSource = Literal["auto", "folders", "file", "none"]
IMAGE_NAMES = ("image", "img", "image_path", "img_path", "image_file", "file_name", "filename", "path", "file")
"""Columns of strings with these names hold paths of images."""
LABEL_NAMES = ("label", "labels", "class", "classes", "cls", "class_id", "class_name", "label_name", "category", "target")
_LISTED = 8  # largest number of column names in a message


@dataclass(frozen=True)
class LabelRule:
    """Where labels come from, and which columns of tables are used; a column of None is found by its type and name.

    labels: auto takes those that the source has, and none leaves all images without labels; folders (class folders) and file (a
    label file) choose where a source has both.
    """

    labels: LabelSource = "auto"
    label_column: str | None = None
    image_column: str | None = None

    def __post_init__(self) -> None:
        if self.labels not in ("auto", "folders", "file", "none"):
            raise RecipeError(f"unknown source of labels {self.labels!r}.", hint="Use auto, folders, file or none.")
        if self.label_column is not None and self.labels in ("folders", "none"):
            raise RecipeError(f"--label-column has no effect with --labels {self.labels}.", hint="Leave one of the two out.")


AUTO = LabelRule()


def image_column(name: str, schema: "pyarrow.Schema", wanted: str | None) -> str:
    """The column of a table that holds images. name: of the table, for messages. Raises DataError for none and for several."""
    if wanted is not None:
        _refuse_missing(name, schema.names, wanted, "--image-column")
        if not (_holds_bytes(schema.field(wanted).type) or _is_text(schema.field(wanted).type)):
            raise DataError(f"{name}: column {wanted} holds {schema.field(wanted).type}, not images.", hint=_found(schema.names))
        return wanted
    candidates = embedded_columns(schema) or [
        field.name for field in schema if field.name.lower() in IMAGE_NAMES and _is_text(field.type)
    ]
    if not candidates:
        raise DataError(
            f"{name} has no column of images; {_found(schema.names)}",
            hint="Images are a column of bytes, of bytes and path, or of paths relative to the file: --image-column NAME",
        )
    return _only(name, candidates, "images", "--image-column")


def embedded_columns(schema: "pyarrow.Schema") -> list[str]:
    """Columns that are declared as images, otherwise those of bytes and path, otherwise those of bytes."""
    declared = [column for column, feature in _features(schema).items() if feature.get("_type") == "Image"]
    types = {field.name: field.type for field in schema}
    usable = [name for name in declared if name in types and (_holds_bytes(types[name]) or _is_text(types[name]))]
    pairs = [name for name, each in types.items() if _is_struct(each) and _holds_bytes(each)]
    return usable or pairs or [name for name, each in types.items() if _holds_bytes(each)]


def label_column(name: str, schema: "pyarrow.Schema", wanted: str | None) -> tuple[str | None, str]:
    """(the column of a table that holds labels, ""), or (None, the reason). Raises DataError for several."""
    if wanted is not None:
        _refuse_missing(name, schema.names, wanted, "--label-column")
        if not _is_class(schema.field(wanted).type):
            raise DataError(f"{name}: column {wanted} holds {schema.field(wanted).type}, not classes.", hint=_found(schema.names))
        return wanted, ""
    declared = [column for column in _features(schema) if class_names(schema, column) and column in schema.names]
    named = [field for field in schema if field.name.lower() in LABEL_NAMES]
    candidates = declared or [field.name for field in named if _is_class(field.type)]
    if candidates:
        return _only(name, candidates, "labels", "--label-column"), ""
    if named:
        return None, f"column {named[0].name} of {name} holds {named[0].type}, not classes"
    return None, f"{name} has no column of labels; {_found(schema.names).removesuffix('.')}"


def label_key(name: str, keys: Sequence[str], wanted: str | None) -> tuple[str | None, str]:
    """As `label_column`, for a file without types: by name alone."""
    if wanted is not None:
        _refuse_missing(name, keys, wanted, "--label-column")
        return wanted, ""
    candidates = [key for key in keys if key.lower() in LABEL_NAMES]
    if candidates:
        return _only(name, candidates, "labels", "--label-column"), ""
    return None, f"{name} has no column of labels; {_found(keys).removesuffix('.')}"


def class_names(schema: "pyarrow.Schema", column: str) -> tuple[str, ...]:
    """Names of the classes by number, as the schema declares them (ClassLabel of Hugging Face's datasets); () if it does not."""
    feature = _features(schema).get(column, {})
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _features(schema: "pyarrow.Schema") -> Mapping[str, dict[str, Any]]:
    """The features that Hugging Face's datasets writes into the schema's metadata, by column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _only(name: str, candidates: list[str], what: str, option: str) -> str:
    if len(candidates) > 1:
        raise DataError(
            f"{name} has {len(candidates)} columns of {what}: {', '.join(candidates[:_LISTED])}.",
            hint=f"Choose one of them: {option} {candidates[0]}"
            + ("; or --labels none" if what == "labels" else ""),
        )
    return candidates[0]


def _refuse_missing(name: str, columns: Sequence[str], wanted: str, option: str) -> None:
    if wanted not in columns:
        raise RecipeError(f"{option} {wanted}: {name} has no such column.", hint=_found(columns))


def _found(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - _LISTED} more" if len(columns) > _LISTED else ""
    return f"Its columns are {', '.join(columns[:_LISTED])}{more}."


def _holds_bytes(each: "pyarrow.DataType") -> bool:
    from pyarrow import types

    if _is_struct(each):
        index = each.get_field_index("bytes")
        return index >= 0 and _holds_bytes(each.field(index).type)
    return bool(types.is_binary(each) or types.is_large_binary(each) or types.is_binary_view(each))


def _is_struct(each: "pyarrow.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_struct(each))


def _is_text(each: "pyarrow.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_string(each) or types.is_large_string(each) or types.is_string_view(each))


def _is_class(each: "pyarrow.DataType") -> bool:
    from pyarrow import types

    if types.is_dictionary(each):
        return _is_class(each.value_type)
    return bool(types.is_integer(each) or types.is_boolean(each) or _is_text(each))
