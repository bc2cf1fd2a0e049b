"""What the tests of diffusion transformers share: a folder with labelled photographs and a tiny autoencoder trained on them."""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from smtool.datasets import open_images
from smtool.datasets.types import to_uint8
from smtool.interop import write_autoencoder
from smtool.networks.autoencoder import SDVAE
from smtool.pipelines.prepare.images import prepare
from smtool.pipelines.train import training
from smtool.pipelines.train.run_diffusion import diffusion_run
from smtool.randomness import initializing
from smtool.recipe import TrainDiT, load
from smtool.report.console import Console
from smtool.report.grids import png_bytes

AUTOENCODER = SDVAE(downsample=4, latent_channels=2, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1)
RECIPE = """
steps = 8
log_every = 1
evaluate_every = 1000
save_every = 4
[latents]
autoencoder = "runs/tiny"
[data]
batch = 8
[model]
kind = "sit"
size = "custom"
depth = 2
width = 32
heads = 2
patch = 2
[labels]
[optimizer]
lr = 1e-2
warmup = 0
[ema]
decay = 0.9
[sampler]
kind = "euler"
steps = 4
[validation]
num_images = 8
grid = 4
[tracking]
tensorboard = false
"""


@dataclass(frozen=True)
class Studio:
    """A working folder: data/classes (42 photographs of 32 px, 3 classes), runs/tiny (an autoencoder), dit.toml."""

    folder: Path

    @property
    def recipe(self) -> str:
        return str(self.folder / "dit.toml")

    def train(self, out: Path, *changes: str, weights_dir: Path | None = None) -> Path:
        """`smtool train-dit dit.toml --out ...` in this process."""
        console = Console(file=io.StringIO())
        loaded = load(self.recipe, TrainDiT, changes)
        return training.train(loaded, diffusion_run, console=console, out=out, weights_dir=weights_dir)

    def write_autoencoder(self, path: Path, seed: int) -> None:
        """Random weights; the last layer is loud, so that pictures use the whole range of intensities."""
        with initializing("test", seed):
            autoencoder = AUTOENCODER.build()
        with torch.no_grad():
            autoencoder.decoder_tail.mul_(2)
        write_autoencoder(path, autoencoder, {"recipe": {"data": {"train": "data/classes", "image_size": 32}}})


@pytest.fixture(scope="session")
def _studio(tmp_path_factory) -> Studio:
    folder = tmp_path_factory.mktemp("studio")
    photos = open_images("builtin:photos?train=42&val=2", "train", image_size=32, root=folder / "photos")
    for number, image in enumerate(to_uint8(photos.read(range(42)).images)):
        place = folder / "pictures" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04d}.png").write_bytes(png_bytes(image))
    prepare(str(folder / "pictures"), out=folder / "data" / "classes", size=32, val_fraction=0.0, workers=1)
    (folder / "dit.toml").write_text(RECIPE)
    studio = Studio(folder)
    studio.write_autoencoder(folder / "runs" / "tiny" / "ckpt.safetensors", 0)
    return studio


@pytest.fixture
def studio(_studio, monkeypatch) -> Studio:
    """The shared folder, as the working directory; what is written into it stays for the tests that follow."""
    monkeypatch.chdir(_studio.folder)
    return _studio


@pytest.fixture(scope="session")
def finished(_studio) -> Path:
    """A whole run of dit.toml, to be looked at and not touched."""
    before = os.getcwd()
    os.chdir(_studio.folder)
    try:
        return _studio.train(_studio.folder / "runs" / "dit")
    finally:
        os.chdir(before)
