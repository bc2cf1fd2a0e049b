"""The base of every recipe table."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A table of a recipe: immutable; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=False)

    @classmethod
    def imported_table(cls, key: str) -> "type[Config] | None":
        """The class of a table that a recipe names as `module:Class`; None for keys that are none."""
        return None


class LossConfig(Config):
    """The recipe table of one loss term."""

    def learned_from(self) -> tuple[str, ...]:
        """Names of the frozen networks whose features the term compares; scores from these networks are biased in its favor."""
        return ()
