"""nvJPEG beside Pillow on the same files: pixels and time."""

import io

import torch
from PIL import Image

from benchmarks.card.findings import Row
from benchmarks.card.timing import seconds_of
from smtool.data.images.jpeg_on_gpu import decoded_jpegs
from smtool.data.images.reader import pixels_of

NAME = "JPEG 95 of 256 px, halved colors"
_MEAN = 2.0
"""Largest accepted mean difference in levels; the largest of a pixel has no bound, since decoders enlarge colors differently."""


def row(device: str, *, tiny: bool) -> Row:
    files = _files(4 if tiny else 64, 32 if tiny else 256)
    ours = torch.stack(decoded_jpegs(files, device)).cpu().float()
    theirs = torch.stack([torch.from_numpy(pixels_of(file).copy()).permute(2, 0, 1) for file in files]).float()
    error = (ours - theirs).abs()
    found: Row = {
        "mean_levels": float(error.mean()), "largest_levels": float(error.max()), "bound": _MEAN,
        "ms": 1e3 * seconds_of(lambda: decoded_jpegs(files, device), device) / len(files),
        "pillow_ms": 1e3 * seconds_of(lambda: [pixels_of(file) for file in files], "cpu") / len(files),
    }  # fmt: skip
    return found if found["mean_levels"] <= _MEAN else {**found, "outcome": "differs"}


def _files(count: int, side: int) -> list[bytes]:
    """Smooth random pictures with the detail of a photograph: noise at every scale, as strong as the scale is coarse."""
    drawn, images = torch.Generator().manual_seed(0), torch.zeros(count, 3, side, side)
    for cells in (4, 8, 16, 32):
        noise = torch.randn(count, 3, cells, cells, generator=drawn) * 60 / cells
        images += torch.nn.functional.interpolate(noise, size=(side, side), mode="bicubic")
    pixels = (images * 8 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    found = []
    for one in pixels:
        file = io.BytesIO()
        Image.fromarray(one).save(file, "JPEG", quality=95)
        found.append(file.getvalue())
    return found
