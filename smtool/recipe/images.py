"""The [data] table of a `train-ae` recipe: images, batches, and sizes of training images over the steps."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from pydantic import Field, NonNegativeInt

from smtool.config import Config
from smtool.image_shape import ImageSize
from smtool.tasks.sizes import Shrink, SizeSchedule


class Data(Config):
    """Images for training and validation."""

    train: str = Field(
        "builtin:photos", description="training images: a prepared folder, raw images, a shard pattern, or builtin:NAME"
    )
    validation: str = Field("", description="images for validation; empty: the validation split of `train`")
    image_size: ImageSize = Field(description="height and width of the images in pixels: one number for squares, else both")
    sizes: tuple[tuple[NonNegativeInt, ImageSize], ...] = Field(
        (),
        description="[first step, size] of phases with smaller training images, such as [[0, 64], [5000, 128]]; empty: "
        "image_size in all steps",
    )
    shrink: Shrink = Field(
        "resize", description="how `sizes` makes images smaller: resized as a whole, or cut at a random place of each image"
    )
    batch: int = Field(ge=1, description="images per step, over all ranks and micro-batches")
    flip: bool = Field(True, description="mirror each training image with probability 1/2")
    workers: int = Field(2, ge=1, description="threads that read and decode images, per rank")
    decode: Literal["cpu", "gpu"] = Field(
        "cpu",
        description="where training images are decoded; gpu: by nvJPEG on an NVIDIA GPU, only images prepared as JPEG; pixels "
        "differ by some levels",
    )
    max_bad: float = Field(
        0.01, ge=0, le=1, description="largest fraction of unreadable images when images are prepared; more are an error"
    )

    @property
    def schedule(self) -> SizeSchedule | None:
        """The sizes of training images over the steps; None if they keep image_size."""
        return SizeSchedule(self.sizes, self.shrink) if self.sizes else None

    @property
    def training_sizes(self) -> tuple[ImageSize, ...]:
        """All sizes of training images, each once, in order of use."""
        return tuple(dict.fromkeys(size for _, size in self.sizes)) or (self.image_size,)

    def schedule_problems(self) -> Iterator[tuple[str, str]]:
        """(key, sentence) for a schedule of sizes that the prepared images or the steps do not allow."""
        steps = [first for first, _ in self.sizes]
        if steps and (steps[0] != 0 or any(b <= a for a, b in pairwise(steps))):
            yield "data.sizes", f"its first steps must begin with 0 and rise, but are {', '.join(map(str, steps))}"
        for size in self.training_sizes if self.sizes else ():
            if size.height > self.image_size.height or size.width > self.image_size.width:
                yield "data.sizes", (
                    f"{size.words} is larger than data.image_size = {self.image_size.words}, the size of the prepared images; "
                    f"raise data.image_size, or leave this size out"
                )
            elif self.shrink == "resize" and size.height * self.image_size.width != size.width * self.image_size.height:
                yield "data.sizes", (
                    f"{size.words} has another shape than data.image_size = {self.image_size.words}, which resizing would "
                    'distort; use sizes of the same shape, or data.shrink = "crop"'
                )
