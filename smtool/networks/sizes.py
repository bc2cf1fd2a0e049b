"""Keys of a network that has published sizes: `size` names one, and depth, width and heads follow from it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ValidationInfo, field_validator

from smtool.config import Config


class PublishedSizes(Config):
    """Checks of the keys `size`, `depth`, `width`, `heads` and `hidden`, which a subclass declares in this order, as far as it
    has them. SIZES: size -> object with the published values; "custom" takes the keys as given.
    """

    SIZES: ClassVar[Mapping[str, Any]]
    WIDTH_MULTIPLE: ClassVar[tuple[int, str]]
    """(number of which the width must be a multiple, its purpose)."""

    @field_validator("depth", "width", "heads", "hidden", check_fields=False)
    @classmethod
    def _published_or_custom(cls, value: int, info: ValidationInfo) -> int:
        size, key = info.data.get("size"), str(info.field_name)
        if size is None:
            return value      # the error of `size` is reported separately
        if size == "custom":
            if value == 0:
                raise ValueError(f'is required with size = "custom", which has no default {key}')
            return value
        published: int = getattr(cls.SIZES[size], key)
        if value not in (0, published):
            raise ValueError(f'is {published} in size "{size}", but is {value}; use size = "custom" for other values')
        return published

    @field_validator("width", check_fields=False)
    @classmethod
    def _holds_sinusoids(cls, width: int) -> int:
        number, purpose = cls.WIDTH_MULTIPLE
        if width % number:
            raise ValueError(f"must be a multiple of {number} for {purpose}, but is {width}")
        return width

    @field_validator("heads", check_fields=False)
    @classmethod
    def _divides_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width")
        if width and heads and width % heads:
            divisors = [n for n in range(1, width + 1) if width % n == 0]
            nearest = min(divisors, key=lambda n: abs(n - heads))
            raise ValueError(f"must divide width = {width}, but is {heads}; {nearest} does")
        return heads
