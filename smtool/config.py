"""The base of every recipe table."""

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

LARGEST_WIDTH = 2**16
"""Largest number of channels of a layer: far above any network, and low enough for sizes in bytes to stay within 64 bits."""
_LARGEST = 2**53
"""Largest integer of a field: JSON numbers are exact up to it, and libraries take it as a 64-bit integer."""


class Config(BaseModel):
    """A table of a recipe: immutable; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=False)

    @field_validator("*", mode="after")
    @classmethod
    def _of_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise ValueError(f"must be at most {_LARGEST}, but is {value if value < 10**30 else 'far above it'}")
        return value

    @classmethod
    def imported_table(cls, key: str) -> "type[Config] | None":
        """The class of a table that a recipe names as `module:Class`; None for keys that are none."""
        return None


class LossConfig(Config):
    """The recipe table of one loss term."""

    def learned_from(self) -> tuple[str, ...]:
        """Names of the frozen networks whose features the term compares; scores from these networks are biased in its favor."""
        return ()
