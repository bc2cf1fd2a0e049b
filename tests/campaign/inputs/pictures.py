"""Mutated pictures in every format, and small files of huge pictures, prepared or read as an evaluation's images."""

import struct
import zlib
from functools import cache
from pathlib import Path
from random import Random

from campaign.mutation import mutated_bytes
from campaign.sandbox import Case, Sandbox
from smtool.commands.prepare.images import prepare
from smtool.evaluation.image_sources import open_source

_SIDES = (0, 1, 2, 3, 8192, 30_000, 60_000, 2**31 - 1, 2**31, 2**32 - 1)


@cache
def _pictures(originals: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((originals / "pictures").iterdir())}


def case(originals: Path, rng: Random, box: Sandbox) -> Case:
    folder = box.inside / "images"
    folder.mkdir()
    pictures = _pictures(originals)
    name = rng.choice(list(pictures))
    match rng.choice(("bytes", "bytes", "bytes", "suffix", "png")):
        case "bytes":
            what, data = mutated_bytes(pictures[name], rng)
        case "suffix":
            what, data = f"named {name}", mutated_bytes(pictures[rng.choice(list(pictures))], rng)[1]
        case _:
            name = "made.png"
            what, data = _made_png(rng)
    (folder / name).write_bytes(data)
    (folder / "intact.png").write_bytes(pictures["rgb.png"])
    if rng.random() < 0.15:
        return Case(f"{name}: {what}, scored", lambda: list(open_source(str(folder)).read(range(2), 2)))
    return Case(f"{name}: {what}", lambda: prepare(str(folder), out=box.out / "prepared", size=8, workers=1, max_bad=1.0))


def _made_png(rng: Random) -> tuple[str, bytes]:
    """A PNG with any size, depth and color type, odd chunks, and few or very many compressed zeros."""
    width, height = rng.choice(_SIDES), rng.choice(_SIDES)
    depth, color = rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 5))
    zeros = rng.choice((0, 100, 100_000, 30_000_000))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, rng.choice((0, 0, 1))))]
    kind = rng.choice((b"", b"zTXt", b"iTXt", b"iCCP", b"PLTE", b"tRNS", b"eXIf", b"gAMA", b"acTL", b"xxxx"))
    if kind:
        chunks.append((kind, rng.choice((b"", b"x\0\0" + _zeros(rng.choice((10, 5_000_000))), rng.randbytes(300)))))
    chunks += [(b"IDAT", _zeros(zeros))] * rng.choice((0, 1, 1, 2)) + [(b"IEND", b"")] * rng.choice((0, 1, 1))
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return f"{width}x{height}, depth {depth}, color type {color}, chunk {kind!r}, {zeros} zeros", data


@cache
def _zeros(count: int) -> bytes:
    return zlib.compress(bytes(count))
