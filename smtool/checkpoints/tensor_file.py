"""The tensors of a file of any tool: safetensors, in one file or in shards with an index, or a pickle (.pt, .pth, .ckpt, .bin)
that is read without running its code."""

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from smtool.checkpoints.shards import ShardedFile, is_index
from smtool.errors import CheckpointError
from smtool.storage import each_tensor, read_formats, read_shapes, refuse_pointer

PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".th", ".tar")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_BESIDE = ("argparse", "pytorch_lightning", "lightning", "numpy", "_codecs", "pathlib")
"""Packages whose objects trainers store beside weights: options, callbacks, scores, paths. They are replaced by `_Inert`."""
_WRAPPED = re.compile(r"(?<![^.])(?:_orig_mod|module)\.")
"""Parts that torch.compile and DistributedDataParallel insert into names."""

_FORMATS = {"F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32}
"""Number formats of safetensors files other than float32."""


class TensorFile:
    """Names and shapes of a file's tensors; `read` loads some of them.

    Keys of nested dictionaries ("ema", "state_dict", "model") become prefixes of names. Raises CheckpointError for an
    unreadable file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pickled = dict(_flat(_unpickled(path))) if path.suffix.lower() in PICKLED else None
        self._sharded = ShardedFile(path) if is_index(path) else None
        if self._pickled is not None:
            found = {name: tuple(tensor.shape) for name, tensor in self._pickled.items()}
        else:
            found = read_shapes(path) if self._sharded is None else self._sharded.shapes
        self._stored = {_plain(name): name for name in found}
        self.shapes = {_plain(name): shape for name, shape in found.items()}

    @property
    def is_pickled(self) -> bool:
        """Whether the file is a pickle, which has no metadata."""
        return self._pickled is not None

    def read(self, wanted: Mapping[str, str], device: str = "cpu") -> dict[str, Tensor]:
        """Copies of tensors, floating-point ones as float32, under new names. wanted: name in the file -> new name."""
        given = {self._stored[name]: new for name, new in wanted.items()}
        return {given[name]: _float32(tensor).to(device) for name, tensor in self._all(list(given)) if name in given}

    def stored_name(self, name: str) -> str:
        """The name as it is in the file, with the parts that torch.compile and DistributedDataParallel insert."""
        return self._stored[name]

    @property
    def sharded(self) -> ShardedFile | None:
        """The shards; None for a single file."""
        return self._sharded

    def dtype_of(self, name: str) -> torch.dtype:
        """The number format in which a tensor is stored."""
        return self._stored_dtypes[self._stored[name]]

    @cached_property
    def _stored_dtypes(self) -> dict[str, torch.dtype]:
        if self._pickled is not None:
            return {name: tensor.dtype for name, tensor in self._pickled.items()}
        files = [self.path] if self._sharded is None else self._sharded.shards
        return {name: _FORMATS.get(one, torch.float32) for file in files for name, one in read_formats(file).items()}

    @property
    def number_format(self) -> torch.dtype:
        """The floating-point format of all weights: float16 or bfloat16 if all have it, else float32."""
        found = {dtype for dtype in self._stored_dtypes.values() if dtype.is_floating_point}
        return found.pop() if len(found) == 1 and found <= {torch.float16, torch.bfloat16} else torch.float32

    def _all(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) for at least these names, one by one."""
        if self._pickled is not None:
            yield from self._pickled.items()
        elif self._sharded is not None:
            yield from self._sharded.tensors(names)
        else:
            prefix = os.path.commonprefix(names)  # noqa: RUF071 (of names, not of paths)
            yield from ((f"{prefix}{rest}", tensor) for rest, tensor in each_tensor(self.path, prefix))


class _Inert:
    """Replacement for any other object in a trainer's file; it ignores its arguments and state."""

    def __new__(cls, *arguments: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _plain(name: str) -> str:
    return _WRAPPED.sub("", name)


def _float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()


def _unpickled(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    refuse_pointer(path)
    try:
        return _loaded(path)
    except pickle.UnpicklingError as error:
        if foreign := _GLOBAL.search(str(error)):
            raise CheckpointError(
                f"{path} is a pickle that would run code ({foreign[1]}); only plain tensors are read.",
                hint="If you trust it, load it with torch and save its state dict as safetensors.",
            ) from error
        raise _unreadable(path) from error
    except Exception as error:      # of any class, depending on the damage
        raise _unreadable(path) from error


def _loaded(path: Path, inert: tuple[str, ...] = ()) -> Any:
    """Load plain tensors with torch; objects of packages in _BESIDE are replaced by _Inert, one more name in each call."""
    known: list[Any] = [(_Inert, name) for name in inert]
    try:
        with safe_globals(known), warnings.catch_warnings(action="ignore", category=UserWarning):  # about old or new pickles
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        named = _GLOBAL.search(str(error))
        if named is None or named[1] in inert or named[1].split(".")[0] not in _BESIDE:
            raise
    return _loaded(path, (*inert, named[1]))


def _unreadable(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a readable file of plain tensors: it may be truncated or of another format.",
        hint="Copy or download it again, or save it as safetensors.",
    )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix.removesuffix("."), value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}{name}.")
