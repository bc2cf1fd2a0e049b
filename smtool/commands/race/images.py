"""The images of a race, opened at its size and with its channels."""

from smtool.commands.race.result import Images
from smtool.commands.train.validate import open_validation
from smtool.data import ImageShards, open_images
from smtool.data.images.progress import Report
from smtool.recipe import Data


def training_images(images: Images, report: Report | None = None) -> ImageShards:
    """The training images; report(done, total) is called if they are prepared first."""
    return open_images(images.train, "train", image_size=images.image_size, channels=images.image_channels, report=report)


def validation_images(images: Images) -> ImageShards:
    """The images for validation."""
    data = Data(train=images.train, validation=images.validation, image_size=images.image_size, batch=1)
    return open_validation(data, images.image_channels)
