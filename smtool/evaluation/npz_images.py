"""Images in ADM's sample and reference files: arr_0 uint8 (N, H, W, C), arr_1 labels, and moments of Inception's features."""

import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from smtool.errors import DataError
from smtool.evaluation.moments import KEYS, Moments, read_moments
from smtool.image_shape import ImageSize

_IMAGES = "arr_0.npy"


class NpzImages:
    """An .npz file. Images are streamed, so that the file may be larger than the memory.

    count, side, channels: number, size and channels of the images; 0, None and 3 for a file with moments only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: no such file.")
        try:
            with zipfile.ZipFile(path) as archive:
                self.names = set(archive.namelist())
                shape = self._header(archive) if _IMAGES in self.names else (0,)
        except DataError:
            raise
        except Exception as error:      # zipfile and numpy raise errors of many classes, depending on the damage
            raise _damaged(path, error) from error
        if not shape[0] and not any({f"{key}.npy" for key in keys} <= self.names for keys in KEYS.values()):
            found = ", ".join(sorted(name.removesuffix(".npy") for name in self.names)) or "nothing"
            raise DataError(f"{path} holds {found}, but arr_0 (images) or mu and sigma (moments) are needed.")
        self.count = shape[0]
        self.side = ImageSize(*shape[1:3]) if shape[0] else None
        self.channels = shape[3] if shape[0] else 3

    def read(self, positions: range, batch: int) -> Iterator[Tensor]:
        """The images at these positions as uint8 (B, C, H, W)."""
        assert self.side is not None
        shape = (*self.side, self.channels)
        one = math.prod(shape)
        with zipfile.ZipFile(self.path) as archive, archive.open(_IMAGES) as file:
            _read_header(file)
            file.seek(positions.start * one, io.SEEK_CUR)
            for start in range(positions.start, positions.stop, batch):
                size = min(batch, positions.stop - start)
                try:
                    data = file.read(size * one)
                    pixels = np.frombuffer(data, dtype=np.uint8).reshape(size, *shape)
                except Exception as error:
                    raise _damaged(self.path, error) from error
                yield torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).contiguous()

    def moments(self) -> Moments | None:
        try:
            return read_moments(self.path)
        except DataError:
            raise
        except Exception as error:
            raise _damaged(self.path, error) from error

    def _header(self, archive: zipfile.ZipFile) -> tuple[int, ...]:
        with archive.open(_IMAGES) as file:
            shape, fortran_order, dtype = _read_header(file)
        if dtype != np.uint8 or len(shape) != 4 or not 1 <= shape[3] <= 4 or fortran_order:
            raise DataError(
                f"{self.path}: arr_0 is {dtype} {shape}, but uint8 images (N, H, W, C) of 1 to 4 channels are needed."
            )
        return shape


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a readable npz file ({error}).", hint="Copy it again: it may be cut off.")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)
