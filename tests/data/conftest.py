"""Small crops of one of scikit-image's bundled photographs, as files and as a prepared folder."""

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smtool.data import open_images
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.reader import ImageShards
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule


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
    """The same, as the bytes of a PNG file."""

    def encode(number: int, width: int = 40, height: int = 32) -> bytes:
        file = io.BytesIO()
        photo(number, width, height).save(file, "PNG")
        return file.getvalue()

    return encode


@pytest.fixture
def photo_folder(tmp_path: Path, photo_bytes: Callable[..., bytes]) -> Callable[[int], Path]:
    """photo_folder(count): a folder of `count` photographs."""

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


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, photo_bytes: Callable[..., bytes]) -> ImageShards:
    """18 labelled photographs of 16 px."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(18):
        place = folder / "photographs" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04d}.png").write_bytes(photo_bytes(number))
    preparation = Preparation(find_source(str(folder / "photographs")), Rule(16), val_fraction=0.0)
    prepare_images(preparation, folder / "prepared", workers=1)
    return open_images(str(folder / "prepared"), "train", image_size=16)
