"""Files of every kind, written or continued by the version of smtool on the path.

Run by campaign.versions: python -m campaign.version_files write | continue
"""

import inspect
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from smtool import cli
from smtool.commands.prepare.images import prepare

SIDE = 16
AUTOENCODER = f"""
seed = 0
steps = 4
log_every = 1
evaluate_every = 4
save_every = 2
data = {{ train = "data", image_size = {SIDE}, batch = 4, workers = 1 }}
model = {{ downsample = 4, latent_channels = 2, channels = [4, 4, 4], norm_groups = 2, blocks_per_level = 1 }}
optimizer = {{ lr = 1e-3, warmup = 2 }}
ema = {{ decay = 0.9 }}
discriminator = {{ num_layers = 1, channels = 4, start = 1 }}
regularizers = {{ dsm = {{ block = "fit" }}, kl = {{ weight = 1e-6 }} }}
validation = {{ num_images = 4, grid = 2 }}
tracking = {{ tensorboard = false }}
"""
TRANSFORMER = """
seed = 0
steps = 4
log_every = 1
evaluate_every = 4
save_every = 2
latents = { autoencoder = "runs/ae", dtype = "fp32" }
data = { batch = 4, workers = 1 }
model = { kind = "sit", size = "custom", depth = 1, width = 16, heads = 2, patch = 2 }
labels = {}
optimizer = { lr = 1e-3, warmup = 2 }
ema = { decay = 0.9 }
sampler = { kind = "euler", steps = 2 }
validation = { num_images = 4, grid = 2 }
tracking = { tensorboard = false }
"""
_CPU = ("--device", "cpu")
_PREPARE = ("prepare", "pictures", "--size", str(SIDE), "--split", "0.2", "--out", "data", "--workers", "1")
_LATENTS = ("prepare", "data", "--latents", "runs/ae", "--out", "cache", *_CPU)
_SAMPLE = ("sample", "runs/sit", "--num-images", "6", "--grid", "0", "--out", "drawn", *_CPU)
_EVAL = ("eval", "runs/sit", "--features", "random", "--num-images", "12", *_CPU, "--json")
_TRAIN = (("train-ae", "ae.toml", "--out", "runs/ae", *_CPU), ("train-dit", "dit.toml", "--out", "runs/sit", *_CPU))


def write() -> None:
    """Pictures, a prepared folder, two runs of 4 steps with the latent cache between them, a cache, samples, scores."""
    generator = np.random.default_rng(0)
    for number in range(18):
        place = Path("pictures") / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (18, 20, 3), dtype=np.uint8)).save(place / f"{number:02d}.png")
    Path("ae.toml").write_text(AUTOENCODER)
    Path("dit.toml").write_text(TRANSFORMER)
    for arguments in (_PREPARE, *_TRAIN, _LATENTS, _SAMPLE, (*_EVAL, "scores.json")):
        _smtool(*arguments)


def go_on() -> None:
    """Verify the prepared folder, the cache and the samples; score; resume both runs to step 8."""
    # versions without color profiles ignored them
    as_before = ("--icc", "ignore") if "icc" in inspect.signature(prepare).parameters else ()
    for arguments in ((*_PREPARE, *as_before), _LATENTS, _SAMPLE, (*_EVAL, "again.json")):
        _smtool(*arguments)
    for arguments in reversed(_TRAIN):  # the transformer first: it needs the autoencoder of step 4
        _smtool(*arguments, "--set", "steps=8")


def _smtool(*arguments: str) -> None:
    sys.argv = ["smtool", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{arguments} ended with exit code {end.code}") from end


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"write": write, "continue": go_on}[sys.argv[1]]()
