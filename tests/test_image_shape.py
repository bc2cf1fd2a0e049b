"""Sizes and channels of images: what recipes, cards and options hold, and how messages show them."""

import json
from typing import Literal

import pytest
from PIL import Image
from pydantic import ValidationError

from smtool.config import Config
from smtool.image_shape import CHANNELS, MODES, ImageSize, in_channels


class Table(Config):
    image_size: ImageSize | Literal["autoencoder"]


@pytest.mark.parametrize(
    ("value", "stored", "text", "words"),
    [
        (256, 256, "256", "256 px"),
        ([256, 256], 256, "256", "256 px"),
        ([512, 768], [512, 768], "512x768", "512 high, 768 wide"),
        ((768, 512), [768, 512], "768x512", "768 high, 512 wide"),
    ],
)
def test_a_square_is_one_number_and_a_rectangle_height_then_width(value, stored, text, words):
    table = Table(image_size=value)
    size = table.image_size
    assert (size.stored, str(size), size.words) == (stored, text, words)
    assert tuple(size) == (size.height, size.width)
    for dumped in (table.model_dump(), table.model_dump(mode="json"), json.loads(table.model_dump_json())):
        assert dumped == {"image_size": stored}
        assert Table.model_validate(dumped) == table
    assert ImageSize.parse(text) == ImageSize.of(value) == size


@pytest.mark.parametrize("value", [0, -4, True, 2.5, "256", [1, 2, 3], [64], [64, 0], [64, "96"], None, {"height": 3}])
def test_other_values_are_refused_with_what_was_found(value):
    with pytest.raises(ValidationError) as caught:
        Table(image_size=value)
    said = str(caught.value)
    assert "at least 1 pixel" in said or f"one whole number or [height, width], but is {value!r}" in said


@pytest.mark.parametrize("text", ["", "x", "64x", "x64", "64x96x3", "-64", "64.0", "6 4", "٤x٤", "0", "0x8"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="must be"):
        ImageSize.parse(text)


@pytest.mark.parametrize("mode", CHANNELS)
def test_channels_are_those_of_pillow(mode):
    assert len(Image.new(mode, (1, 1)).getbands()) == CHANNELS[mode]
    assert MODES[CHANNELS[mode]] == mode
    assert in_channels(CHANNELS[mode]) == f"{CHANNELS[mode]} channel{'' if mode == 'L' else 's'} ({mode})"
