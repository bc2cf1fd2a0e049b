"""Fixtures of the report's tests: prepared photographs, two tiny autoencoders, and one complete report of them."""

import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from smtool.checkpoints import write_autoencoder
from smtool.commands.prepare.images import prepare
from smtool.diffusability.report import Report
from smtool.diffusability.spectrum import spectrum
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing
from smtool.report.console import Console


@dataclass(frozen=True)
class Drawn:
    """A report, the folder of its files, and the console output."""

    report: Report
    folder: Path
    shown: str


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> str:
    """48 validation crops of 12 photographs, 32 px."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    prepare("builtin:photos?train=24&val=48", out=folder, size=32, val_fraction=0.05, workers=1)
    return str(folder)


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """Run folders of two untrained autoencoders; the second has latents of 4x4 cells."""
    folder = tmp_path_factory.mktemp("runs")
    for name, widths in {"plain": (8, 8, 8), "coarse": (8, 8, 8, 8)}.items():
        with initializing(0, name):
            autoencoder = SDVAE(
                downsample=2 ** (len(widths) - 1), latent_channels=3, channels=widths, blocks_per_level=1, norm_groups=4
            ).build()
        recipe = {"data": {"image_size": 32}, "regularizers": {"esm": {"delta": 0.6}} if name == "plain" else {}}
        write_autoencoder(folder / name / "ckpt.safetensors", autoencoder, {"recipe": recipe, "step": 0, "data": "none"})
    return folder


@pytest.fixture(scope="session")
def drawn(runs, data, tmp_path_factory) -> Drawn:
    """The report of both autoencoders with all options."""
    out, shown = tmp_path_factory.mktemp("out"), io.StringIO()
    what = [str(runs / "plain"), str(runs / "coarse" / "ckpt.safetensors")]
    report = spectrum(what, plot=True, data=data, out=out, published=["celeba/dsm"], console=Console(file=shown))
    return Drawn(report, out, shown.getvalue())
