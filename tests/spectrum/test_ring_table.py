import pytest
import torch

from smtool.spectrum import PHYSICAL, REFERENCE, spectrum_of
from smtool.spectrum.ring_table import RingTable


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_table_holds_what_spectrum_of_gives_for_all_images_at_once(images):
    table = RingTable(REFERENCE.loss, (8, 8))
    for part in images.split(4):
        table.add(part)
    torch.testing.assert_close(table.spectrum().power, spectrum_of(images, REFERENCE.loss, (8, 8)).power)
    assert len(table.channels()) == 3
    torch.testing.assert_close(table.channels()[1].power, spectrum_of(images[:, 1:2], REFERENCE.loss, (8, 8)).power)


def test_dividing_channels_by_their_std_is_the_spectrum_of_normalized_latents(images):
    std = torch.tensor([0.5, 2.0, 4.0])
    table = RingTable(PHYSICAL)
    table.add(images)
    torch.testing.assert_close(table.spectrum(std).power, spectrum_of(images / std.view(1, 3, 1, 1), PHYSICAL).power)
