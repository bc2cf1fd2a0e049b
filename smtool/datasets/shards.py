"""Webdataset shards: plain tar files of `NNNNNNNN.png .cls .json` members, each with an index of where its images begin.

The bytes depend on the samples alone: no time, owner or worker count enters them.
"""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from smtool.datasets.card import Shard, damaged
from smtool.datasets.entries import Sample
from smtool.storage import file_digest, replacing, write_text

COLUMNS = ("key", "suffix", "offset", "bytes", "crc32", "label", "group")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an index: the image member's key, suffix, place in the tar, checksum, and the sample's label and group."""

    key: str
    suffix: str
    offset: int
    bytes: int
    crc32: int
    label: int | None
    group: str | None


def write_shard(path: Path, samples: Iterable[tuple[str, Sample]], suffix: str) -> Shard:
    """Write (key, sample) pairs to a tar, then its index; each appears whole or not at all."""
    rows = []
    with replacing(path) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, sample in samples:
            rows.append(_add_sample(tar, key, sample, suffix))
    index = path.with_suffix(".tsv")
    write_text(index, "\t".join(COLUMNS) + "\n" + "".join(_line(row) for row in rows))
    return Shard(
        name=path.name, images=len(rows), bytes=path.stat().st_size, sha256=file_digest(path), index_sha256=file_digest(index)
    )


def read_index(folder: Path, shard: Shard) -> list[Row]:
    """The rows of a shard's index, checked against the card's sha256."""
    path = folder / shard.index_name
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != shard.index_sha256:
        raise damaged(path, "its sha256 differs from the card's")
    return [_row(line) for line in data.decode().splitlines()[1:]]


def _add_sample(tar: tarfile.TarFile, key: str, sample: Sample, suffix: str) -> Row:
    entry = sample.entry
    note = {"id": entry.id, "width": sample.width, "height": sample.height}
    offset = _add_member(tar, f"{key}.{suffix}", sample.data)
    if entry.label is not None:
        _add_member(tar, f"{key}.cls", str(entry.label).encode())
    if entry.group is not None:
        note["group"] = entry.group
    _add_member(tar, f"{key}.json", json.dumps(note, sort_keys=True).encode())
    return Row(key, suffix, offset, len(sample.data), zlib.crc32(sample.data), entry.label, entry.group)


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a member with nothing in its header but name, size and mode; returns the offset of its data."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o444
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(data))
    return offset


def _line(row: Row) -> str:
    label = "" if row.label is None else str(row.label)
    return f"{row.key}\t{row.suffix}\t{row.offset}\t{row.bytes}\t{row.crc32}\t{label}\t{row.group or ''}\n"


def _row(line: str) -> Row:
    key, suffix, offset, size, crc32, label, group = line.split("\t")
    return Row(key, suffix, int(offset), int(size), int(crc32), int(label) if label else None, group or None)
