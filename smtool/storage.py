"""Atomic writes (to a temporary file, flushed and renamed) of safetensors, JSON and text, and reading of safetensors.

Only functions that move tensors import torch.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from smtool.errors import CheckpointError, DiskError, SmtoolError

if TYPE_CHECKING:
    from torch import Tensor

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_POINTER = b"version https://git-lfs.github.com/spec/"
_NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def parsing(path: Path, error: type[SmtoolError] = CheckpointError, *, hint: str | None = None) -> Iterator[None]:
    """Context in which the contents of a file are interpreted; contents of another form raise `error`, which names the file.

    For JSON, TOML, metadata and arrays, in which any value may be missing, of another type or out of range.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, RecursionError) as found:
        reason = shortened((str(found).splitlines() or [""])[0])
        message = f"{path} does not have the form that smtool writes or reads ({type(found).__name__}: {reason})."
        raise error(message, hint=hint or "It may be damaged or changed; copy it again or restore it.") from found


def shortened(text: str, length: int = 200) -> str:
    """A text of another library or of a file for a message: its first `length` characters."""
    return text if len(text) <= length else f"{text[:length]}..."


def printable(name: str) -> str:
    """A file name in which bytes that are not UTF-8, which Python reads as surrogates, are written out, as in caf\\udce9."""
    return name.encode(errors="backslashreplace").decode()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`, else removed.

    Raises DiskError if the disk is full or permission is denied.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        _flush_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise _disk_error(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of `replacing` in a folder whose processes were killed while they wrote."""
    for aside in folder.glob(".*.part"):
        process = aside.name.split(".")[-2]
        if aside.is_file() and process.isdecimal() and not _is_running(int(process)):
            aside.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):      # of another user
        return True
    return True


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as aside:
        aside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, escaped where `printable` escapes it."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline. Raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file. Metadata values are stored as JSON; tensors are moved to the CPU and made contiguous.

    Equal contents give equal bytes.
    """
    from safetensors.torch import save_file

    plain: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        plain[name] = value.clone() if place in memory else value      # the format does not allow shared memory
        memory.add(place)
    text = {name: json.dumps(value, allow_nan=False) for name, value in metadata.items()}
    with replacing(path) as aside:
        aside.touch()
        mode = aside.stat().st_mode
        save_file(plain, aside, metadata=text)      # it writes a private file of its own
        _sort_metadata(aside)
        aside.chmod(mode)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata in the header, in place: the library writes them in a random order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        ordered = {"__metadata__": dict(sorted(metadata.items())), **header}
        text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
        if metadata and len(text) <= length:      # the library's own text is as compact
            file.seek(8)
            file.write(text.ljust(length))


def read_tensors(path: Path, device: str = "cpu") -> "dict[str, Tensor]":
    """All tensors of a safetensors file. Raises CheckpointError if it is missing, truncated or of another format."""
    with _opened(path, device) as file:
        return {name: file.get_tensor(name) for name in _names(file)}


def each_tensor(path: Path, prefix: str = "") -> "Iterator[tuple[str, Tensor]]":
    """Yield (name without the prefix, tensor on the CPU) for each tensor whose name begins with `prefix`."""
    with _opened(path, "cpu") as file:
        for name in _names(file):
            if name.startswith(prefix):
                yield name.removeprefix(prefix), file.get_tensor(name)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file; values that are not JSON (files of other tools) are returned as text."""
    with _opened(path, "cpu") as file:
        return {name: _json_or_text(value) for name, value in (file.metadata() or {}).items()}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor, without reading the data."""
    with _opened(path, "cpu") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in _names(file)}


def read_formats(path: Path) -> dict[str, str]:
    """Name and number format (F32, F16, BF16, I64 ...) of each tensor, without reading the data."""
    with _opened(path, "cpu") as file:
        return {name: file.get_slice(name).get_dtype() for name in _names(file)}


def refuse_pointer(path: Path) -> None:
    """Raise CheckpointError if the file is a pointer of Git LFS, as a clone without `git lfs` leaves in place of large files."""
    with path.open("rb") as file:
        text = file.read(512)
    if text.startswith(_POINTER):
        size = dict(line.split(" ", 1) for line in text.decode(errors="replace").splitlines() if " " in line).get("size", "")
        stated = f" of {int(size) / 1e6:,.1f} MB" if size.isdigit() else ""
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the file{stated} that it stands for.",
            hint="Run `git lfs pull` in that folder, or download the file itself.",
        )


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_digest(tensors: "Mapping[str, Tensor]") -> str:
    """sha256 over names, dtypes, shapes and values, independent of the order of tensors and of the file."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


@contextmanager
def _opened(path: Path, device: str) -> Iterator[Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}).",
            hint="It may be truncated or of another format; copy it again, or pass a checkpoint that `smtool train-ae` wrote.",
        ) from error


def _names(file: Any) -> list[str]:
    return list(file.keys())


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk_error(path: Path, error: OSError | SafetensorError) -> DiskError:
    code = getattr(error, "errno", None)
    if code in _NO_ROOM or "No space left" in str(error) or "File too large" in str(error):
        return DiskError(
            f"{path}: no space left on the disk; the file was not written.",
            hint="Free some space and run the same command again.",
        )
    if code in _NO_RIGHT:
        return DiskError(f"{path}: no permission to write here.", hint="Choose another --out folder.")
    reason = str(error) if isinstance(error, SafetensorError) else error.strerror or str(error)
    return DiskError(f"{path}: could not be written ({reason}).", hint="Choose another --out, or remove what is in the way.")
