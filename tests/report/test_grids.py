import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from smtool.report.grids import (
    DIFFERENCE_GAIN,
    centred,
    enlarged,
    fitted,
    framed,
    image_grid,
    png_bytes,
    reconstruction_grid,
    viridis,
)


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


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_a_png_has_the_mode_of_its_channels(channels, mode):
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    back = Image.open(io.BytesIO(png_bytes(image)))
    assert back.mode == mode
    assert np.array_equal(np.asarray(back).reshape(5, 7, channels), image.permute(1, 2, 0).numpy())


def test_grids_show_gray_as_gray_and_clear_parts_as_mid_gray():
    gray = torch.full((1, 1, 2, 2), 77, dtype=torch.uint8)
    assert (image_grid(gray) == 77).all() and image_grid(gray).shape == (3, 2, 2)
    clear = torch.tensor([10, 20, 200, 0], dtype=torch.uint8).view(1, 4, 1, 1)
    assert image_grid(clear).flatten().tolist() == [128, 128, 128]
    solid = torch.tensor([10, 20, 200, 255], dtype=torch.uint8).view(1, 4, 1, 1)
    assert image_grid(solid).flatten().tolist() == [10, 20, 200]
    images = torch.rand(2, 2, 4, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grid = reconstruction_grid(images, -images)
    assert grid.shape == (3, 3 * 4 + 2, 2 * 6 + 1) and torch.equal(grid[0], grid[2])


def test_a_picture_is_centred_on_white():
    picture = centred(torch.zeros(3, 2, 4, dtype=torch.uint8), (6, 5))
    assert picture.shape == (3, 6, 5) and (picture[:, 2:4, :4] == 0).all() and picture.sum() == 255 * 3 * (30 - 8)


def test_the_grid_has_inputs_reconstructions_and_differences_in_rows():
    images = torch.stack([torch.full((3, 4, 6), value) for value in (-1.0, 0.0, 0.2)])
    grid = reconstruction_grid(images, images + 0.1)
    assert grid.dtype == torch.uint8
    assert grid.shape == (3, 3 * 4 + 2, 3 * 6 + 2)
    assert grid[0, 0, 0] == 0                                            # black input
    assert grid[0, 5, 7] == round(1.1 * 127.5)                          # second reconstruction
    assert grid[0, 10, 0] == round((1 + 0.1 * DIFFERENCE_GAIN) * 127.5)      # difference
    assert (grid[:, 4] == 255).all()
    assert (grid[:, :, 6] == 255).all()


def test_equal_images_differ_by_mid_grey_only():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grid = reconstruction_grid(images, images, separator=0)
    assert torch.equal(grid[:, :8], grid[:, 8:16])
    assert (grid[:, 16:] == 128).all()


def test_images_of_different_sizes_are_an_error():
    with pytest.raises(ValueError, match="differ in shape"):
        reconstruction_grid(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4))


def test_a_frame_changes_no_pixel_inside_or_outside_it():
    picture = torch.full((3, 40, 40), 100, dtype=torch.uint8)
    out = framed(picture, 2, 1, (4, 4))
    changed = np.argwhere((out != picture).any(0).numpy())
    assert changed.min(0).tolist() == [16, 6] and changed.max(0).tolist() == [33, 23]
    assert (out[:, 20:30, 10:20] == 100).all()
    assert set(out[0][(out != picture).any(0)].tolist()) == {0, 255}
    corner = framed(picture, 0, 0, (4, 4))
    assert (corner[:, :10, :10] == 100).all() and (corner != picture).any()


def test_enlarging_makes_no_new_values_for_any_grid():
    picture = torch.arange(3 * 5 * 7, dtype=torch.uint8).view(3, 5, 7)
    large = fitted(picture, 70)
    assert large.shape == (3, 50, 70)
    torch.testing.assert_close(large[:, 5::10, 5::10], picture)
    assert enlarged(picture[None], 160).shape == (1, 3, 160, 224)
    assert enlarged(torch.zeros(1, 3, 256, 256), 160).shape[-1] == 256


def test_colours_are_matplotlibs():
    values = torch.tensor([[0.0, 0.5, 1.0, 2.0]])
    expected = np.round(matplotlib.colormaps["viridis"]([0, 128, 255, 255])[:, :3] * 255).astype(np.uint8).T[:, None]
    np.testing.assert_array_equal(viridis(values).numpy(), expected)
