"""Files of samples: PNG or JPEG, webdataset shards, or one ADM-style npz. Written in parts, so that a run can be resumed."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smtool import storage
from smtool.data.images.transform import encode
from smtool.inference.sampling import SAMPLING_FILE, Sampling, read_sampling
from smtool.report.grids import png_bytes

Format = Literal["png", "jpeg:75", "jpeg:95", "shards", "npz"]
FORMATS = get_args(Format)
LOSSY = ("jpeg:75", "jpeg:95")
"""JPEG of this quality with 4:2:0 chroma. 75 is the default of Pillow and torchvision, 95 that of OpenCV."""
PART = 256
"""Largest number of images in a part. A killed run loses at most its current part."""
SMALLEST_PART = 16


class SampleFolder:
    """A folder of samples in one format. Each part is written atomically; ranks share the parts.

    The size of a part depends only on the number of images: about 16 parts, of 16 to 256 images.
    """

    def __init__(self, folder: Path, kind: Format, count: int, labels: Sequence[int] | None) -> None:
        self.folder, self.kind, self.count, self.labels = folder, kind, count, labels

    def parts(self) -> list[range]:
        """Indices of the images in each part."""
        size = self._size
        return [range(start, min(start + size, self.count)) for start in range(0, self.count, size)]

    @property
    def _size(self) -> int:
        return min(PART, max(SMALLEST_PART, self.count // 16))

    def has(self, part: range) -> bool:
        """Whether the part is already written."""
        if self._single:
            return all(self._image(index).exists() for index in part)
        return self._part(part).exists() or (self.kind == "npz" and self._npz().exists())

    def write(self, part: range, images: Tensor) -> None:
        """Write a part. images: uint8 (len(part), C, H, W)."""
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        if self._single:
            for index, image in zip(part, pixels, strict=True):
                storage.write_bytes(self._image(index), self._encoded(image))
        elif self.kind == "shards":
            storage.write_bytes(self._part(part), self._shard(part, pixels))
        else:
            data = io.BytesIO()
            np.save(data, pixels)
            storage.write_bytes(self._part(part), data.getvalue())

    def finish(self) -> Path:
        """Join the parts of an npz; write the labels of single files. Returns the npz file, else the folder."""
        if self.kind == "npz" and not self._npz().exists():
            parts = [self._part(part) for part in self.parts()]
            pixels = np.concatenate([np.load(path) for path in parts])
            write_npz(self._npz(), pixels, self.labels)
        if self.kind == "npz":      # of an earlier call too, which was killed while it removed them
            for part in self.parts():
                self._part(part).unlink(missing_ok=True)
        if self.labels is not None and self._single:
            storage.write_json(self.folder / "labels.json", list(self.labels))
        return self._npz() if self.kind == "npz" else self.folder

    def first(self, count: int) -> Tensor:
        """The first images, uint8 (count, C, H, W), read from the finished files."""
        if self.kind == "npz":
            pixels = np.load(self._npz())["arr_0"][:count]
        else:
            files = self._first_files(count)
            pixels = np.stack([np.asarray(Image.open(file)) for file in files])
        pixels = pixels.reshape(*pixels.shape[:3], -1)      # Pillow gives gray images no axis of channels
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _first_files(self, count: int) -> list[Path | io.BytesIO]:
        if self._single:
            return [self._image(index) for index in range(count)]
        files: list[Path | io.BytesIO] = []
        for part in self.parts():
            if len(files) < count:
                with tarfile.open(self._part(part)) as archive:
                    pngs = [member for member in archive if member.name.endswith(".png")]
                    files += [io.BytesIO(archive.extractfile(member).read()) for member in pngs]  # type: ignore[union-attr]
        return files[:count]

    @property
    def _single(self) -> bool:
        """Whether each image is a file."""
        return self.kind not in ("shards", "npz")

    def _image(self, index: int) -> Path:
        return self.folder / f"{index:06d}.{'png' if self.kind == 'png' else 'jpg'}"

    def _encoded(self, image: np.ndarray) -> bytes:
        """The bytes of the file of an image (H, W, C)."""
        if self.kind == "png":
            return png_bytes(torch.from_numpy(image).permute(2, 0, 1))
        return encode(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), self.kind)

    def _npz(self) -> Path:
        return self.folder / "samples.npz"

    def _part(self, part: range) -> Path:
        name = f"samples-{part.start // self._size:06d}"
        return self.folder / (f"{name}.tar" if self.kind == "shards" else f".{name}.npy")

    def _shard(self, part: range, pixels: np.ndarray) -> bytes:
        """A tar of .png (and .cls) files with fixed timestamps, so that equal samples give equal bytes."""
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for index, image in zip(part, pixels, strict=True):
                members = {"png": png_bytes(torch.from_numpy(image).permute(2, 0, 1))}
                if self.labels is not None:
                    members["cls"] = str(self.labels[index]).encode()
                for suffix, content in members.items():
                    member = tarfile.TarInfo(f"{index:06d}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        return data.getvalue()


def write_npz(path: Path, images: np.ndarray, labels: Sequence[int] | None) -> None:
    """Write ADM's sample file: arr_0 uint8 (N, H, W, 3), and with classes arr_1 int64 (N,)."""
    arrays = {"arr_0": images} | ({} if labels is None else {"arr_1": np.asarray(labels, dtype=np.int64)})
    with storage.replacing(path) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def check_passport(folder: Path, passport: Sampling) -> list[str]:
    """Names of the fields in which the passport of a folder differs from `passport`. Writes `passport` if the folder has none."""
    path = folder / SAMPLING_FILE
    if not path.exists():
        storage.write_json(path, passport.to_json())
        return []
    before = dict(read_sampling(folder))
    return sorted(name for name, value in passport if before[name] != value)
