"""Size and mode of images: what their height, width and channels are. Only the standard library, so that it imports quickly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

ImageMode = Literal["L", "LA", "RGB", "RGBA"]
"""Pillow's names: gray, gray with alpha, color, color with alpha."""

CHANNELS: dict[str, int] = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
"""Number of channels of images of each mode."""
LARGEST_SIDE = 8192
"""Largest height or width of prepared images, in pixels."""
MODES: dict[int, ImageMode] = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Mode of images by their number of channels."""


def in_channels(channels: int) -> str:
    """The number of channels and its mode, for messages: "1 channel (L)"."""
    return f"{channels} channel{'s'[: channels != 1]} ({MODES[channels]})"


@dataclass(frozen=True)
class ImageSize:
    """Height and width of images in pixels.

    Recipes and cards hold one number for a square and [height, width] for a rectangle; `of` reads both, `stored` writes them.
    `str` gives the form of the command line, 256 or 512x768; `words` is for people: "256 px" or "512 high, 768 wide".
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"must be at least 1 pixel a side, but is {self}")

    @classmethod
    def of(cls, value: Any) -> "ImageSize":
        """The size that is stored as a number or as a pair of numbers. Raises ValueError for anything else."""
        if isinstance(value, ImageSize):
            return value
        sides = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value, value]
        if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
            raise ValueError(f"must be one whole number or [height, width], but is {value!r}")
        return cls(*sides)

    @classmethod
    def parse(cls, text: str) -> "ImageSize":
        """The size of a text such as 256 or 512x768. Raises ValueError for any other text."""
        sides = text.lower().split("x")
        if not 1 <= len(sides) <= 2 or not all(side.isascii() and side.isdecimal() for side in sides):
            raise ValueError(f"must be one number or HEIGHTxWIDTH, such as 256 or 512x768, but is {text!r}")
        return cls(int(sides[0]), int(sides[-1]))

    def __iter__(self) -> Iterator[int]:
        return iter((self.height, self.width))

    def __str__(self) -> str:
        return str(self.height) if self.is_square else f"{self.height}x{self.width}"

    @property
    def is_square(self) -> bool:
        return self.height == self.width

    @property
    def shorter(self) -> int:
        return min(self.height, self.width)

    @property
    def words(self) -> str:
        """For messages: "256 px", or "512 high, 768 wide"."""
        return f"{self.height} px" if self.is_square else f"{self.height} high, {self.width} wide"

    @property
    def stored(self) -> int | list[int]:
        """For JSON and TOML: one number, or [height, width]."""
        return self.height if self.is_square else [self.height, self.width]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        side = core_schema.int_schema()
        stored = core_schema.union_schema([side, core_schema.list_schema(side, min_length=2, max_length=2)])
        return core_schema.no_info_plain_validator_function(
            cls.of,
            json_schema_input_schema=stored,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda size: size.stored, return_schema=stored),
        )


SizeLike = ImageSize | int | Sequence[int]
"""What `ImageSize.of` reads."""
