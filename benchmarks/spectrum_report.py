"""Cost of `smtool spectrum` beyond its network passes, and whether its memory grows with the number of images.

The yardstick of time is the network passes that the report needs (spectrum.md#cost-and-intervals): 240 encodes, 9 decodes for
the band transfer of 16 images, 15 for the low-pass curve of 32, and 3 times encode and decode for the shifts of 16. The network
is narrow and far cheaper per image than a published one, so the overhead is a larger fraction here than in normal use. Processor
time is given beside wall time, because it does not depend on other load on the machine.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import Row
from smtool.checkpoints import write_autoencoder
from smtool.commands.prepare.images import prepare
from smtool.data import open_images
from smtool.diffusability.inputs.subjects import images_at_once
from smtool.diffusability.spectrum import spectrum
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing
from smtool.report.console import Console
from smtool.tokenizers import Tokenizer, open_tokenizer

SIDE, NUM_IMAGES, FEWER_IMAGES = 128, 240, 60
SECTION = SDVAE(downsample=8, latent_channels=4, channels=(32, 32, 64, 64), norm_groups=8, blocks_per_level=1)


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        data, checkpoint = Path(temporary) / "photos", Path(temporary) / "ae.safetensors"
        prepare(f"builtin:photos?train=16&val={NUM_IMAGES}", out=data, size=SIDE, val_fraction=0.99, workers=2)
        with initializing(0):
            write_autoencoder(checkpoint, SECTION.build(), {})
        bare, ours = [], []
        for _ in range(2):
            bare.append(_bare_passes(open_tokenizer(str(checkpoint)), data))
            with _Stopwatch() as watch:
                spectrum([str(checkpoint)], data=str(data), num_images=NUM_IMAGES, console=Console(quiet=True))
            ours.append(watch)
        few, many = (_peak_memory(checkpoint, data, number) for number in (FEWER_IMAGES, NUM_IMAGES))
    name, passes = f"report of {NUM_IMAGES} images, {SIDE} px", f"bare passes: {NUM_IMAGES} encodes, 624 decodes, 48 of both"
    wall, processor = ([min(getattr(watch, kind) for watch in row) for row in (ours, bare)] for kind in ("wall", "processor"))
    return [
        Row(name, wall[0], "s", wall[1], passes, aim=1 / 1.15),
        Row(f"{name}, processor", processor[0], "s", processor[1], passes, aim=1 / 1.15),
        Row(f"peak memory of a report of {NUM_IMAGES} images", many, "MB", few, f"of {FEWER_IMAGES} images", aim=0.95),
    ]


class _Stopwatch:
    """Wall and processor time of a `with` block, in seconds."""

    def __enter__(self) -> "_Stopwatch":
        self.wall, self.processor = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall, self.processor = time.perf_counter() - self.wall, time.process_time() - self.processor


@torch.no_grad()
def _bare_passes(codec: Tokenizer, data: Path) -> _Stopwatch:
    """The network passes alone, in the report's batches, on images in memory."""
    images = open_images(str(data), "val", image_size=SIDE).read(range(32)).images
    batch = images_at_once(SIDE, SIDE)
    latents = codec.encode(images[:batch]).mean.repeat(32 // batch, 1, 1, 1)
    codec.decode(latents[:batch])
    with _Stopwatch() as watch:
        for number in range(0, NUM_IMAGES, batch):
            codec.encode(images[number % 32:number % 32 + batch])
        for repeats, count in ((15, 32), (9, 16), (3, 16)):
            for _ in range(repeats):
                for part in latents[:count].split(batch):
                    codec.decode(part)
        for _ in range(3):
            for part in images[:16].split(batch):
                codec.encode(part)
    return watch


def _peak_memory(checkpoint: Path, data: Path, number: int) -> float:
    """Peak memory of the report in a separate process, in MB."""
    command = [sys.executable, "-m", "smtool", "spectrum", str(checkpoint), "--data", str(data), "--num-images", str(number)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([*command, "--json", "-"], env=os.environ | threads, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["cost"]["peak_memory_mb"]["process"])
