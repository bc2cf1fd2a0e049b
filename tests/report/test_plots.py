import pytest
import torch

from smtool.report.plots import DIFFERENCE_GAIN, reconstruction_grid


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


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        reconstruction_grid(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4))
