"""A folder of diffusers' AutoencoderDC with random weights, and tiles: every command, on images of 96 px in tiles of 64 px.

Each command but inspect is driven once in a new interpreter, with its drawings, and again, with other options, in a fork
(warm_process); tests/commands/inspect/test_cost.py starts inspect.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import warm_process
from diffusers import AutoencoderDC
from PIL import Image
from torch.testing import assert_close

from smtool.data import open_images, open_latents

RECIPE = """
steps = 2
log_every = 1
evaluate_every = 2
save_every = 2
[latents]
autoencoder = "dc-ae"
dtype = "fp32"
[data]
train = "images"
image_size = 96
batch = 4
[model]
kind = "sit"
size = "custom"
depth = 1
width = 16
heads = 2
patch = 4
[optimizer]
warmup = 0
[sampler]
kind = "euler"
steps = 2
[validation]
num_images = 2
grid = 2
[tracking]
tensorboard = false
"""
RACE = ["log_every=1", "data.batch=4", "evaluate_every=2", "save_every=2", "validation.num_images=2", "validation.grid=2",
        "sampler.steps=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with dc-ae (f4, receptive field 59 px), prepared images and dit.toml."""
    folder = tmp_path_factory.mktemp("every")
    half = {"block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"), "block_out_channels": (8, 8, 16),
            "layers_per_block": (1, 1, 1), "qkv_multiscales": ((), (), (5,))}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in half.items()}
        made = AutoencoderDC(**sizes, latent_channels=8, attention_head_dim=4, scaling_factor=0.5)
    made.save_pretrained(folder / "dc-ae")
    (folder / "dit.toml").write_text(RECIPE)
    in_new_interpreter(folder, "prepare", "builtin:photos?train=12&val=8", "--out", "images", "--size", "96")
    return folder


@pytest.fixture(scope="module")
def dit(place) -> Path:
    in_new_interpreter(place, "train-dit", "dit.toml", "--out", "dit")
    return place / "dit"


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300"}


def in_new_interpreter(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "smtool", *arguments]
    return said(subprocess.run(command, capture_output=True, text=True, cwd=folder, env=ENVIRONMENT, timeout=900))


def smtool(folder: Path, *arguments: str) -> str:
    return said(warm_process.run(*arguments, cwd=folder, env=ENVIRONMENT))


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.stdout[-500:]}{done.stderr[-2000:]}"
    return done.stdout + done.stderr


def theirs(place: Path) -> AutoencoderDC:
    return AutoencoderDC.from_pretrained(place / "dc-ae").eval()


@pytest.mark.slow
@pytest.mark.parametrize("tile", [None, 64])
def test_latents_are_those_of_diffusers(place, tile):
    """The first 8x8 cells come from the first tile alone: tiles of 64 px start at 0 and 32."""
    folder = f"latents-{tile}"
    smtool(place, "prepare", "images", "--latents", "dc-ae", "--dtype", "fp32", "--no-flip", "--out", folder,
           *(["--tile", str(tile)] if tile else []))
    assert json.loads((place / folder / "latents.json").read_text()).get("tile") == tile
    found = open_latents(place / folder, autoencoder=None, data=None).read(range(12), [False] * 12).mean
    images = open_images(str(place / "images"), "train", image_size=96).read(range(12)).images
    with torch.no_grad():
        expected = theirs(place).encode(images[..., :tile, :tile]).latent
    cells = 24 if tile is None else 8
    assert_close(found[..., :cells, :cells], expected[..., :cells, :cells], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_transformer_trains_on_its_latents_and_samples_are_decoded(place, dit):
    in_new_interpreter(place, "sample", "dit", "--num-images", "2", "--out", "whole")
    smtool(place, "sample", "dit", "--num-images", "2", "--tile", "64", "--out", "tiled")
    assert json.loads((place / "tiled" / "samples.json").read_text())["tile"] == 64
    one, two = (np.asarray(Image.open(place / folder / "000000.png")).astype(float) for folder in ("whole", "tiled"))
    assert one.shape == two.shape == (96, 96, 3)
    assert 0 < np.abs(one - two).mean() < 0.25 * one.std()
    assert "dc-ae f4d8" in smtool(place, "inspect", "dit")      # it is inside the checkpoint


@pytest.mark.slow
def test_scores_are_those_of_diffusers(place):
    in_new_interpreter(place, "eval", "dc-ae", "--data", "images", "--json", "whole.json")
    smtool(place, "eval", "dc-ae", "--data", "images", "--tile", "64", "--json", "tiled.json")
    whole, tiled = (json.loads((place / f"{name}.json").read_text()) for name in ("whole", "tiled"))
    images = open_images(str(place / "images"), "val", image_size=96).read(range(8)).images
    network = theirs(place)
    with torch.no_grad():
        decoded = network.decode(network.encode(images).latent).sample.clamp(-1, 1)
    pixels = [((image + 1) * 127.5).round() for image in (decoded, images)]
    psnr = 10 * torch.log10(255**2 / (pixels[0] - pixels[1]).square().mean((1, 2, 3)))
    assert whole["scores"]["psnr"]["value"] == pytest.approx(psnr.mean().item(), abs=0.01)
    assert "tile" not in whole["checkpoint"] and tiled["checkpoint"]["tile"] == 64
    assert tiled["scores"]["psnr"]["value"] == pytest.approx(psnr.mean().item(), abs=1)


@pytest.mark.slow
def test_its_spectrum_is_measured_whole_and_in_tiles(place):
    for name, run, options in (("whole", in_new_interpreter, []), ("tiled", smtool, ["--tile", "64"])):
        outputs = ["--out", f"spectrum-{name}", "--json", f"{name}-spectrum.json"]
        run(place, "spectrum", "dc-ae", "--data", "images", *outputs, *options)
    whole, tiled = (json.loads((place / f"{name}-spectrum.json").read_text()) for name in ("whole", "tiled"))
    assert tiled["passport"]["tile"] == 64 and whole["passport"]["tile"] is None
    one, two = (found["autoencoders"][0]["normalization"]["std"] for found in (whole, tiled))
    assert one == two == [2.0]      # 1 / scaling_factor


@pytest.mark.slow
def test_tiles_below_the_receptive_field_are_refused_everywhere(place, dit, command, monkeypatch):
    monkeypatch.chdir(place)
    for arguments in (["prepare", "images", "--latents", "dc-ae"], ["sample", "dit", "--num-images", "2"],
                      ["eval", "dc-ae", "--data", "images"], ["spectrum", "dc-ae", "--data", "images"]):
        before = set(place.rglob("*"))
        code, _, said = command(*arguments, "--tile", "32")
        assert code == 2
        name = "dc-ae f4d8" if arguments[0] == "sample" else "dc-ae"      # a transformer's file does not know the folder's name
        assert f"--tile 32 is smaller than the receptive field of {name}, 59 px" in said and "Try --tile 64" in said
        assert set(place.rglob("*")) == before


@pytest.mark.slow
def test_it_is_inspected_exported_and_raced(place):
    assert "AutoencoderDC" in smtool(place, "inspect", "dc-ae")
    in_new_interpreter(place, "export", "dc-ae", "--to", "diffusers", "--out", "exported")
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        again = AutoencoderDC.from_pretrained(place / "exported").eval().encode(images).latent
        assert_close(again, theirs(place).encode(images).latent, rtol=1e-5, atol=1e-6)
    changes = ["--set", f"transformer.changes={json.dumps(RACE)}", "--set", "seeds=[0]"]
    options = ["--data", "images", "--budget", "2", "--jobs", "1", "--out", "race"]
    in_new_interpreter(place, "race", "dc-ae", "control:crop", *options, *changes)
    assert "dc-ae" in (place / "race" / "race.json").read_text()


@pytest.mark.slow
def test_it_is_trained_further(place):
    changes = ["model.init=dc-ae", "data.image_size=96", "data.batch=4", "steps=2", "optimizer.warmup=0",
               "validation.num_images=4"]
    changes = [part for change in changes for part in ("--set", change)]
    text = in_new_interpreter(place, "train-ae", "heal/dsm", *changes, "--data", "images", "--out", "run")
    assert "starting from dc-ae (AutoencoderDC f4, 8 channels" in text and "latents measured anew" in text
    smtool(place, "export", "run", "--to", "original", "--out", "again")
    stats = json.loads((place / "again" / "config.json").read_text())["scaling_factor"]
    images = open_images(str(place / "images"), "train", image_size=96).read(range(12)).images
    with torch.no_grad():
        latents = AutoencoderDC.from_pretrained(place / "again").eval().encode(images).latent
    assert stats == pytest.approx(latents.square().mean().rsqrt().item(), rel=1e-3)      # 1 / root mean square
