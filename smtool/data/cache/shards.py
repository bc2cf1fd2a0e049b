"""Webdataset shards of tensors: members `NNNNNNNN.safetensors`, `.flip.safetensors` and `.cls`, with an index of offsets.

A safetensors member holds a network's outputs for one image. The bytes depend only on the samples.
"""

import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from smtool.data.cache.card import CacheDtype
from smtool.data.images.card import Shard
from smtool.data.images.shards import add_member, index_bytes
from smtool.errors import DataError
from smtool.storage import file_digest, replacing, write_bytes

TORCH_DTYPES: dict[CacheDtype, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
CACHE_INDEX = np.dtype(
    [("key", "<u4"), ("label", "<i4"), ("bytes", "<u4"), ("offset", "<u8", (2,)), ("crc32", "<u4", (2,))]  # [plain, flipped]
)
"""One row per image: number in the split, label (-1: none); size, offsets and checksums of its members (plain, mirrored)."""


@dataclass(frozen=True)
class CacheSample:
    """The packed tensors of one image: first those of the image, then, if stored, those of the mirrored image."""

    key: str
    label: int | None
    members: tuple[bytes, ...]


def packed(tensors: Mapping[str, Tensor], dtype: CacheDtype) -> list[bytes]:
    """Tensors (B, ...) -> for each of the B samples, the bytes of a safetensors file."""
    stored = {name: value.cpu().to(TORCH_DTYPES[dtype]) for name, value in tensors.items()}
    count = len(next(iter(stored.values())))
    plain = {name: value.contiguous() for name, value in stored.items()}      # networks may return channels_last
    return [safetensors.torch.save({name: value[k].clone() for name, value in plain.items()}) for k in range(count)]


def unpacked(members: Iterable[bytes]) -> dict[str, Tensor]:
    """The inverse of `packed`: tensors (B, ...), of the stored dtype."""
    try:
        samples = [safetensors.torch.load(data) for data in members]
    except SafetensorError as error:
        raise DataError(f"A stored sample is not a safetensors file ({error}).", hint="Make the cache again.") from error
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def rounded(value: Tensor, dtype: CacheDtype) -> Tensor:
    """`value` rounded to the stored dtype, as it will be read back; float32."""
    return value.to(TORCH_DTYPES[dtype]).float()


def write_cache_shard(path: Path, samples: Iterable[CacheSample]) -> Shard:
    """Write samples to a tar, then its index as .npy, both atomically."""
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
    write_bytes(index, index_bytes(np.array(rows, dtype=CACHE_INDEX)))
    return Shard(
        name=path.name, images=len(rows), bytes=path.stat().st_size, sha256=file_digest(path), index_sha256=file_digest(index)
    )


def bytes_per_image(shapes: Mapping[str, Sequence[int]], dtype: CacheDtype, *, flip: bool, labelled: bool) -> int:
    """Bytes of one image in a shard: tar members, each rounded up to 512-byte blocks plus a header block."""
    size = len(packed({name: torch.zeros(1, *shape) for name, shape in shapes.items()}, dtype)[0])
    member = tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))
    return member * (1 + flip) + 2 * tarfile.BLOCKSIZE * labelled + CACHE_INDEX.itemsize
