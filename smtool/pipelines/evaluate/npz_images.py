"""Images in ADM's sample and reference files: arr_0 uint8 (N, H, W, 3), arr_1 labels, and moments of Inception's features."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from smtool.errors import DataError
from smtool.features.extractor import View
from smtool.metrics.frechet import FeatureStats

_MOMENTS: dict[View, tuple[str, str]] = {"pooled": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
_IMAGES = "arr_0.npy"


class NpzImages:
    """An .npz file. Images are streamed, so that a file larger than the memory can be read.

    count, side: of the images, 0 and None where there are moments only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: no such file.")
        try:
            with zipfile.ZipFile(path) as archive:
                self.names = set(archive.namelist())
                shape = self._header(archive) if _IMAGES in self.names else (0,)
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise DataError(f"{path} is not a readable npz file ({error}).", hint="It may be cut off; copy it again.") from error
        if not shape[0] and not self._moments():
            found = ", ".join(sorted(name.removesuffix(".npy") for name in self.names)) or "nothing"
            raise DataError(f"{path} holds {found}, but arr_0 (images) or mu and sigma (their statistics) are needed.")
        self.count = shape[0]
        self.side = (shape[1], shape[2]) if shape[0] else None

    def read(self, count: int, batch: int) -> Iterator[Tensor]:
        """The first `count` images as uint8 (B, 3, H, W)."""
        assert self.side is not None
        height, width = self.side
        with zipfile.ZipFile(self.path) as archive, archive.open(_IMAGES) as file:
            _read_header(file)
            for start in range(0, min(count, self.count), batch):
                size = min(batch, count - start, self.count - start)
                data = file.read(size * height * width * 3)
                pixels = np.frombuffer(data, dtype=np.uint8).reshape(size, height, width, 3)
                yield torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).contiguous()

    def statistics(self) -> dict[View, FeatureStats]:
        """Moments by view; how many images they are of is not stated in such files."""
        with np.load(self.path) as arrays:
            return {
                view: FeatureStats.given(torch.from_numpy(arrays[mean]), torch.from_numpy(arrays[covariance]))
                for view, (mean, covariance) in self._moments().items()
            }

    def _moments(self) -> dict[View, tuple[str, str]]:
        return {view: names for view, names in _MOMENTS.items() if {f"{name}.npy" for name in names} <= self.names}

    def _header(self, archive: zipfile.ZipFile) -> tuple[int, ...]:
        with archive.open(_IMAGES) as file:
            shape, fortran_order, dtype = _read_header(file)
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or fortran_order:
            raise DataError(f"{self.path}: arr_0 is {dtype} {shape}, but uint8 images (N, H, W, 3) are needed.")
        return shape


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)
