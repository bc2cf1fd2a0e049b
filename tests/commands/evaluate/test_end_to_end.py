"""Rectangles of grey and of RGBA from loose files to scores, through the command line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import warm_process
from PIL import Image

HEIGHT, WIDTH, COUNT = 16, 24, 24
AE = """
seed = 0
steps = 2
save_every = 2
evaluate_every = 2
log_every = 1
data = {{ train = "prepared", image_size = [{height}, {width}], batch = 4 }}
optimizer = {{ lr = 1e-3 }}
tracking = {{ tensorboard = false }}
[model]
kind = "sd-vae"
downsample = 4
channels = [8, 8, 8]
norm_groups = 4
blocks_per_level = 1
image_channels = {channels}
"""
DIT = """
seed = 0
steps = 1
data = { batch = 4 }
latents = { autoencoder = "runs/ae/ckpt.safetensors" }
model = { kind = "sit", size = "custom", depth = 1, width = 16, heads = 2, patch = 2 }
process = { kind = "flow" }
optimizer = { lr = 1e-3 }
sampler = { kind = "euler", steps = 2 }
tracking = { tensorboard = false }
"""


def in_a_process_of_its_own(*arguments):
    done = warm_process.run(*arguments, env={**os.environ, "COLUMNS": "500"})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 4)])
def test_rectangles_of_other_channels_go_from_files_to_scores(mode, channels, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)

    def smtool(*arguments, call=command):
        code, out, err = call(*arguments)
        assert code == 0, err
        return out

    Path("raw").mkdir()
    for number in range(COUNT):      # of several sizes, so that the folder itself is a mixed reference
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number % 3, 30, 4), np.uint8)
        Image.fromarray(pixels).convert(mode).save(f"raw/{number:02d}.png")
    options = ("--size", f"{HEIGHT}x{WIDTH}", "--mode", mode, "--split", "0.5", "--workers", "1")
    smtool("prepare", "raw", "--out", "prepared", *options)
    Path("ae.toml").write_text(AE.format(height=HEIGHT, width=WIDTH, channels=channels))
    smtool("train-ae", "ae.toml", "--out", "runs/ae")
    shown = smtool("eval", "runs/ae", "--psnr", "--ssim", "--features", "random", "--json", "ae.json")
    own = f"over {channels} channel{'s' if channels > 1 else ''}"
    seen = {"L": "grey repeated to three channels", "RGBA": "alpha composited on grey"}[mode]
    assert f"PSNR, dB, SSIM: {own}." in shown and f"FD random: {seen}." in shown
    passports = [score["passport"] for score in json.loads(Path("ae.json").read_text())["scores"].values()]
    assert {passport["image_sizes"] for passport in passports} == {f"{HEIGHT}x{WIDTH}"}
    Path("dit.toml").write_text(DIT)
    smtool("train-dit", "dit.toml", "--out", "runs/dit")
    smtool("sample", "runs/dit", "--num-images", "12", "--out", "runs/dit/samples")
    written = smtool("eval", "runs/dit/samples", "--features", "random", "--json", "written.json")
    assert f"FD random: {seen}." in written and "white" not in written
    assert "1 file is not used: 1 not written by `smtool sample`." in written      # what the run logged in that folder
    smtool("eval", "runs/dit", "--num-images", "12", "--features", "random", "--json", "drawn.json")
    drawn, written = (json.loads(Path(f"{name}.json").read_text())["scores"] for name in ("drawn", "written"))
    for name, score in drawn.items():
        assert written[name]["value"] == pytest.approx(score["value"], rel=1e-3)
        assert written[name]["passport"]["channels"] == score["passport"]["channels"] == seen
    options = ("--features", "random", "--reference", "raw")
    shown = smtool("eval", "runs/dit/samples", *options, call=in_a_process_of_its_own)
    assert "images of 16x24, reference of mixed sizes (8 of 20x30, 8 of 21x30, 8 of 22x30)" in shown
    assert "white" not in shown
