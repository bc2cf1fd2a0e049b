"""The price of JPEG in the card equals a count of bytes and an error over files that Pillow alone wrote."""

import io

import numpy as np
import pytest
from PIL import Image

from smtool.data.images.card import read_card
from smtool.data.images.decoding import Reading
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule


@pytest.fixture
def pictures(tmp_path, rng):
    """18 smooth pictures of the prepared size, so that cropping changes nothing."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(18):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((16, 16), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("image_format", ["png", "jpeg:60"])
def test_sizes_and_psnr_are_those_of_files_that_pillow_writes(pictures, tmp_path, image_format):
    out = tmp_path / "out"
    prepare_images(Preparation(find_source(str(pictures)), Rule(16, image_format=image_format), val_fraction=0.0), out, workers=1)
    price = read_card(out).jpeg
    quality = 95 if image_format == "png" else 60
    assert (price.format, price.images) == (f"jpeg:{quality}", 16)
    errors, sizes = {}, {"png": [], "jpeg": []}
    for path in pictures.iterdir():
        image, files = Image.open(path), {}
        for name, options in (("png", {"compress_level": 6}), ("jpeg", {"quality": quality})):
            files[name] = io.BytesIO()
            image.save(files[name], name, **options)
            sizes[name].append(len(files[name].getvalue()))
        coded = np.asarray(Image.open(files["jpeg"]), float)
        errors[path.name] = np.square(coded - np.asarray(image, float)).mean()
    for name, found in (("png", price.png_bytes), ("jpeg", price.jpeg_bytes)):      # 16 of the 18
        assert (sum(sizes[name]) - 2 * max(sizes[name])) / 16 <= found <= sum(sorted(sizes[name])[2:]) / 16 + 0.5
    values = sorted(errors.values())
    low, high = (10 * np.log10(255**2 / np.mean(chosen)) for chosen in (values[2:], values[:16]))
    assert low - 0.05 <= price.psnr <= high + 0.05


def test_images_with_alpha_have_no_price(pictures, tmp_path):
    rule = Rule(16, reading=Reading(mode="RGBA"))
    prepare_images(Preparation(find_source(str(pictures)), rule, val_fraction=0.0), tmp_path / "out", workers=1)
    assert read_card(tmp_path / "out").jpeg is None
