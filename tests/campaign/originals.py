"""Small valid objects of every kind, made once; cases mutate copies of them."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from smtool import load_autoencoder
from smtool.commands.export import export
from smtool.networks.taesd import TAESD
from smtool.report.console import Console

TESTS = Path(__file__).resolve().parents[1]
FORMATS = ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm", "tga", "ico", "jpeg2000", "sgi", "pcx", "dib", "mpo", "avif")
SIDE = 12


def build(folder: Path) -> None:
    """Write all objects to `folder`: run folders, prepared data and caches (old/), checkpoints of other tools (weights/),
    pictures in every format and mode (pictures/), archives (archives/), races and score files (results/)."""
    shutil.copytree(TESTS / "data/before-redesign", folder / "old")
    for name in ("weights", "pictures", "archives", "results"):
        (folder / name).mkdir()
    _weights(folder / "old/runs/ae/ckpt.safetensors", folder / "weights")
    _pictures(folder / "pictures")
    _archives(folder / "pictures", folder / "archives")
    _results(folder / "results")


def _weights(checkpoint: Path, out: Path) -> None:
    export(str(checkpoint), to="diffusers", out=out / "diffusers", symmetric=True, console=Console(file=io.StringIO()))
    state = load_autoencoder(checkpoint).state_dict()
    torch.save(state, out / "plain.pt")
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, out / "trainer.ckpt")
    torch.save({"ema": state, "opt": {"state": {0: {"step": torch.tensor(1.0)}}}}, out / "nested.bin")
    torch.save(TAESD(latent_channels=4, width=8).build().encoder.state_dict(), out / "taesd_encoder.pth")


def _pictures(out: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = Image.fromarray(generator.integers(0, 256, (SIDE, SIDE + 4, 3), dtype=np.uint8))
    for kind in FORMATS:
        if kind.upper() in Image.SAVE or (Image.init() and kind.upper() in Image.SAVE):
            pixels.save(out / f"rgb.{kind}", kind.upper())
    for mode in ("L", "LA", "P", "RGBA", "I;16", "1"):
        converted = pixels.convert("L").convert("I").convert("I;16") if mode == "I;16" else pixels.convert(mode)
        converted.save(out / f"mode-{mode.replace(';', '')}.png")
    pixels.convert("CMYK").save(out / "cmyk.jpeg")
    frames = [pixels.rotate(90 * turn) for turn in range(3)]
    frames[0].save(out / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(out / "pages.tiff", save_all=True, append_images=frames[1:], compression="tiff_deflate")
    exif = Image.Exif()
    exif[274] = 6
    pixels.save(out / "turned.jpeg", exif=exif)


def _archives(pictures: Path, out: Path) -> None:
    data = [path.read_bytes() for path in sorted(pictures.glob("*.png"))]
    with tarfile.open(out / "classes.tar", "w") as tar:
        for number, content in enumerate(data):
            _add(tar, f"{'ab'[number % 2]}/{number}.png", content)
    for name, mode in (("classes.tar.gz", "w:gz"), ("classes.tar.xz", "w:xz")):
        with tarfile.open(out / name, mode) as tar:
            for number, content in enumerate(data):
                _add(tar, f"{'ab'[number % 2]}/{number}.png", content)
    with zipfile.ZipFile(out / "classes.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(data):
            archive.writestr(f"{'ab'[number % 2]}/{number}.png", content)
    for shard in range(2):
        with tarfile.open(out / f"shard-{shard:06d}.tar", "w") as tar:
            for number, content in enumerate(data):
                _add(tar, f"{shard}{number}.png", content)
                _add(tar, f"{shard}{number}.cls", str(number % 2).encode())
                _add(tar, f"{shard}{number}.json", b'{"id": "x", "width": 16, "height": 12}')


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _results(out: Path) -> None:
    generator = np.random.default_rng(0)
    shutil.copy(TESTS / "commands/race/race.json", out / "race.json")
    np.savez(out / "images.npz", arr_0=generator.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), arr_1=np.arange(6))
    mean, factor = generator.normal(size=8), generator.normal(size=(8, 8))
    np.savez(out / "moments.npz", mu=mean, sigma=factor @ factor.T)
