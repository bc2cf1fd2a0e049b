"""The linear probe on prepared images with and without classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from smtool.commands.race.class_probe import Labels, probed
from smtool.data import open_images, validation_batches
from smtool.networks.posterior import LatentStats
from smtool.tokenizers import open_tokenizer

COLOURS = {"blue": (40, 40, 180), "green": (40, 180, 40), "red": (180, 40, 40)}


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Training and validation images of 8 px whose class is their mean colour, under noise; and the same without classes."""
    folder, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for kind in ("classes", "plain"):
            (folder / kind / name if kind == "classes" else folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(20):
            image = Image.fromarray(np.clip(np.array(colour) + rng.normal(0, 30, (8, 8, 3)), 0, 255).astype(np.uint8))
            image.save(folder / "classes" / name / f"{number}.png")
            image.save(folder / "plain" / f"{name}{number}.png")
    return {
        (kind, split): open_images(str(folder / kind), split, image_size=8, root=folder / "prepared")
        for kind in ("classes", "plain") for split in ("train", "val")
    }


def _latents(images):
    batches = Labels(validation_batches(images, batch=16))
    latents = torch.cat([batch.images for batch in batches])
    return latents, batches.all, LatentStats("channel", latents.mean((0, 2, 3)), latents.std((0, 2, 3)), len(latents), "")


def test_classes_by_colour_are_found_in_pixels(coloured):
    latents, labels, stats = _latents(coloured["classes", "train"])
    found = probed(open_tokenizer("pixels", image_size=8), coloured["classes", "val"], stats.normalize(latents), labels, stats)
    assert labels.shape == (len(latents),)
    assert (found.value, found.half_width) == (1.0, 0.0)
    assert found.chance < 0.9


def test_images_without_classes_have_a_reason(coloured):
    latents, labels, stats = _latents(coloured["plain", "train"])
    pixels = open_tokenizer("pixels", image_size=8)
    assert labels is None
    found = probed(pixels, coloured["plain", "val"], latents, labels, stats)
    assert (found.value, found.reason) == (None, "the training images have no classes")
    latents, labels, stats = _latents(coloured["classes", "train"])
    found = probed(pixels, coloured["plain", "val"], latents, labels, stats)
    assert found.reason == "the validation images have no classes"
    found = probed(pixels, coloured["classes", "val"], latents, torch.zeros_like(labels), stats)
    assert "at least 2 classes" in found.reason
