import io

import numpy as np
import pytest
import torch
from PIL import Image

from smtool.report.grids import image_grid, png_bytes


def images_of(count, height=3, width=5):
    values = torch.randint(0, 255, (count, 3, height, width), generator=torch.Generator().manual_seed(0))
    return values.to(torch.uint8)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (4, 2, 2), (5, 3, 2), (16, 4, 4), (17, 5, 4)])
def test_a_grid_is_about_square_and_every_image_is_in_its_place(count, columns, rows):
    images = images_of(count)
    grid = image_grid(images)
    assert grid.shape == (3, 4 * rows - 1, 6 * columns - 1)
    assert grid.dtype == torch.uint8
    for k in range(count):
        top, left = 4 * (k // columns), 6 * (k % columns)
        assert torch.equal(grid[:, top : top + 3, left : left + 5], images[k])


def test_lines_and_empty_places_are_white():
    grid = image_grid(images_of(3), columns=2)
    assert (grid[:, 3] == 255).all()
    assert (grid[:, :, 5] == 255).all()
    assert (grid[:, 4:, 6:] == 255).all()
    assert image_grid(images_of(4), columns=4, separator=0).shape == (3, 3, 20)


def test_png_keeps_every_value():
    image = images_of(1)[0]
    back = np.asarray(Image.open(io.BytesIO(png_bytes(image))))
    assert np.array_equal(back, image.permute(1, 2, 0).numpy())
