"""Webdataset shards of moments: members `NNNNNNNN.safetensors`, `.flip.safetensors` and `.cls`, with an index of offsets.

A safetensors member holds "mean" and "logvar", each (C, h, w). The bytes depend on the samples alone.
"""

import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from smtool.datasets.card import Shard
from smtool.datasets.shards import add_member, index_bytes
from smtool.networks.posterior import Posterior
from smtool.storage import file_digest, replacing, write_bytes

LatentDtype = Literal["bf16", "fp32"]
TORCH_DTYPES: dict[LatentDtype, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
LATENT_INDEX = np.dtype(
    [("key", "<u4"), ("label", "<i4"), ("bytes", "<u4"), ("offset", "<u8", (2,)), ("crc32", "<u4", (2,))]  # [plain, flipped]
)
"""A row per image: its number in the split, its label (-1 is none), and where its moments and the flipped ones' lie."""


@dataclass(frozen=True)
class LatentSample:
    """Moments of one image, packed: those of the image, then, where there are any, those of the flipped image."""

    key: str
    label: int | None
    members: tuple[bytes, ...]


def packed(posterior: Posterior, dtype: LatentDtype) -> list[bytes]:
    """Each sample's mean and logvar as the bytes of a safetensors file."""
    mean, logvar = (value.cpu().to(TORCH_DTYPES[dtype]) for value in (posterior.mean, posterior.logvar))
    return [safetensors.torch.save({"mean": m.clone(), "logvar": v.clone()}) for m, v in zip(mean, logvar, strict=True)]


def unpacked(members: Iterable[bytes]) -> Posterior:
    """The inverse of `packed`, float32."""
    tensors = [safetensors.torch.load(data) for data in members]
    mean, logvar = (torch.stack([each[name] for each in tensors]).float() for name in ("mean", "logvar"))
    return Posterior(mean, logvar)


def rounded(posterior: Posterior, dtype: LatentDtype) -> Posterior:
    """The values that will be read back."""
    return Posterior(*(_through(value, TORCH_DTYPES[dtype]) for value in (posterior.mean, posterior.logvar)))


def write_latent_shard(path: Path, samples: Iterable[LatentSample]) -> Shard:
    """Write samples to a tar, then its index as .npy; each appears whole or not at all."""
    rows = []
    with replacing(path) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            offsets, checks = [0, 0], [0, 0]
            for side, data in enumerate(sample.members):
                name = f"{sample.key}.{'flip.' if side else ''}safetensors"
                offsets[side], checks[side] = add_member(tar, name, data), zlib.crc32(data)
            if sample.label is not None:
                add_member(tar, f"{sample.key}.cls", str(sample.label).encode())
            label = -1 if sample.label is None else sample.label
            rows.append((int(sample.key), label, len(sample.members[0]), offsets, checks))
    index = path.with_suffix(".npy")
    write_bytes(index, index_bytes(np.array(rows, dtype=LATENT_INDEX)))
    return Shard(
        name=path.name, images=len(rows), bytes=path.stat().st_size, sha256=file_digest(path), index_sha256=file_digest(index)
    )


def bytes_per_image(latent_shape: tuple[int, int, int], dtype: LatentDtype, *, flip: bool, labelled: bool) -> int:
    """What an image takes in a shard: members of whole 512-byte blocks, each with a header block."""
    zeros = torch.zeros(1, *latent_shape)
    size = len(packed(Posterior(zeros, zeros), dtype)[0])
    member = tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))
    return member * (1 + flip) + 2 * tarfile.BLOCKSIZE * labelled + LATENT_INDEX.itemsize


def _through(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype).float()
