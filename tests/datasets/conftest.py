"""Small pictures cut from one of scikit-image's bundled photographs."""

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photo() -> Callable[..., Image.Image]:
    """photo(number, width, height): one of many different crops."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.submodule_search_locations
    whole = Image.open(Path(spec.submodule_search_locations[0]) / "data" / "coffee.png").convert("RGB")

    def crop(number: int, width: int = 40, height: int = 32) -> Image.Image:
        x, y = (number * 37) % (whole.width - width), (number * 53) % (whole.height - height)
        return whole.crop((x, y, x + width, y + height))

    return crop


@pytest.fixture(scope="session")
def photo_bytes(photo: Callable[..., Image.Image]) -> Callable[..., bytes]:
    """The same as a PNG file's bytes."""

    def encode(number: int, width: int = 40, height: int = 32) -> bytes:
        file = io.BytesIO()
        photo(number, width, height).save(file, "PNG")
        return file.getvalue()

    return encode


@pytest.fixture
def photo_folder(tmp_path: Path, photo_bytes: Callable[..., bytes]) -> Callable[[int], Path]:
    """photo_folder(count): a folder of so many photographs."""

    def write(count: int) -> Path:
        folder = tmp_path / "photographs"
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:04d}.png").write_bytes(photo_bytes(number))
        return folder

    return write


@pytest.fixture
def noise(rng: np.random.Generator) -> Callable[[int, int], Image.Image]:
    def draw(width: int, height: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    return draw
