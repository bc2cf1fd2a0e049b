"""Sizes of training images over the steps: against Pillow's resize, as windows of the images, and refusals of schedules."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from smtool.data.batches import ImageBatch
from smtool.errors import RecipeError
from smtool.image_shape import ImageSize
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import streams
from smtool.recipe import Data, TrainAE, load
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction
from smtool.tasks.sizes import SizeSchedule

SIZES = ((0, ImageSize(8, 8)), (3, ImageSize(16, 16)), (5, ImageSize(12, 12)))


def _images(count: int = 6, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _draws(step: int = 0):
    return streams(0, step, "autoencoder", batch=6)


def test_each_size_begins_at_its_step():
    schedule = SizeSchedule(SIZES)
    assert [schedule.at(step).height for step in range(7)] == [8, 8, 8, 16, 16, 12, 12]
    assert torch.equal(schedule.apply(_images(), _draws(), 4), _images())


def test_resized_images_are_those_of_pillow():
    """Pillow resizes each channel as float32, with the same bicubic filter (a = -0.5) and antialiasing."""
    images = _images()
    found = SizeSchedule(SIZES).apply(images, _draws(), 0)
    for image, small in zip(images.numpy(), found.numpy(), strict=True):
        for channel, mine in zip(image, small, strict=True):
            expected = np.asarray(Image.fromarray(channel, mode="F").resize((8, 8), Image.Resampling.BICUBIC))
            np.testing.assert_allclose(mine, expected.clip(-1, 1), atol=1e-5)


def test_cut_images_are_windows_at_all_places_and_do_not_depend_on_the_slice():
    images = _images()
    schedule = SizeSchedule(SIZES, "crop")
    places = set()
    for step in range(3):
        found = schedule.apply(images, _draws(step), step)
        for image, window in zip(images, found, strict=True):
            (place,) = [(i, j) for i in range(9) for j in range(9) if torch.equal(image[:, i : i + 8, j : j + 8], window)]
            places.add(place)
        parts = [schedule.apply(images[a:b], _draws(step).at(a, b), step) for a, b in ((0, 2), (2, 6))]
        assert torch.equal(torch.cat(parts), found)
    assert len(places) > 10


def test_both_networks_of_a_step_get_the_size_of_the_step():
    autoencoder = SDVAE(downsample=4, latent_channels=2, norm_groups=4, channels=(4, 4, 8), blocks_per_level=1).build()
    task = AutoencoderTask(
        autoencoder, {}, reconstruction=Reconstruction(), perceptual=None, adversary=None, discriminator=None, flip=True,
        sizes=SizeSchedule(SIZES),
    )
    seen = []
    autoencoder.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
    for step in range(6):
        task.loss("autoencoder", ImageBatch(_images(), None, tuple("abcdef")), _draws(step), step).total.backward()
    assert seen == [8, 8, 8, 16, 16, 12]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.sizes=[[1,32]]"], "its first steps must begin with 0 and rise, but are 1"),
        (["data.sizes=[[0,32],[0,64]]"], "its first steps must begin with 0 and rise, but are 0, 0"),
        (["data.sizes=[[0,32],[5,128]]"], "128 px is larger than data.image_size = 64 px"),
        (["data.sizes=[[0,[32,64]]]"], "which resizing would distort"),
        (["data.sizes=[[0,30]]"], "an image of 30x30 cannot be encoded"),
        (["data.sizes=[[0,16],[5,64]]"], "the latent is 4x4, which blocks of 8 do not fill"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(changes, message):
    with pytest.raises(RecipeError) as error:
        load("dsm", TrainAE, changes)
    assert message in str(error.value) + (error.value.hint or "")


def test_a_size_that_comes_after_the_end_is_remarked():
    tables = load("dsm", TrainAE, ["data.sizes=[[0,32],[5000,64]]"]).tables
    assert "data.sizes: step 5000 is not below steps = 1000: 64 px is never used." in list(tables.remarks())
    assert tables.largest_shapes.images[-2:] == (64, 64)


def test_a_phase_needs_a_step_and_a_size():
    with pytest.raises(ValidationError):
        Data(image_size=64, batch=1, sizes=[[0]])
    with pytest.raises(ValidationError):
        Data(image_size=64, batch=1, sizes=[[-1, 64]])
