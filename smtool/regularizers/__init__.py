"""The regularizers. To add one, write a file with its recipe table and module, and add one line to `Regularizers`.

A method of the user's own code needs neither: a recipe names it as `[regularizers."module:Class"]`.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ModelWrapValidatorHandler, create_model, model_validator

from smtool.config import Config, LossConfig
from smtool.own_code import names_own_code
from smtool.regularizers.base import Encoding, Pair, Regularizer, RegularizerConfig, Shapes
from smtool.regularizers.channel_prefix import ChannelPrefix
from smtool.regularizers.dsm import DSM
from smtool.regularizers.eq_vae import EQVAE
from smtool.regularizers.esm import ESM
from smtool.regularizers.kl import KL
from smtool.regularizers.latent_masking import LatentMasking
from smtool.regularizers.latent_noise import LatentNoise
from smtool.regularizers.local_correlation import LocalCorrelation
from smtool.regularizers.own import own_class
from smtool.regularizers.scale_equivariance import ScaleEquivariance
from smtool.regularizers.stay import Stay
from smtool.regularizers.uae import UAE
from smtool.regularizers.va_vae import VAVAE

__all__ = [
    "DSM",
    "EQVAE",
    "ESM",
    "KL",
    "UAE",
    "VAVAE",
    "ChannelPrefix",
    "Encoding",
    "LatentMasking",
    "LatentNoise",
    "LocalCorrelation",
    "Pair",
    "Regularizer",
    "RegularizerConfig",
    "Regularizers",
    "ScaleEquivariance",
    "Shapes",
    "Stay",
]


class Regularizers(LossConfig):
    """The [regularizers.*] tables. A regularizer is used if its table is present.

    A key `module:Class` names a table of the user's own code; it becomes a field of a subclass.
    """

    kl: KL | None = None
    esm: ESM | None = None
    latent_noise: LatentNoise | None = None
    uae: UAE | None = None
    dsm: DSM | None = None
    scale_equivariance: ScaleEquivariance | None = None
    eq_vae: EQVAE | None = None
    stay: Stay | None = None
    va_vae: VAVAE | None = None
    local_correlation: LocalCorrelation | None = None
    latent_masking: LatentMasking | None = None
    channel_prefix: ChannelPrefix | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _with_own(cls, values: Any, handler: ModelWrapValidatorHandler["Regularizers"]) -> "Regularizers":
        keys = values if isinstance(values, Mapping) else ()
        own = tuple((key, own_class(key)) for key in keys if names_own_code(key) and key not in cls.model_fields)
        return _extended(cls, own).model_validate(values) if own else handler(values)

    @classmethod
    def imported_table(cls, key: str) -> type[Config] | None:
        return own_class(key) if names_own_code(key) else None

    @property
    def present(self) -> dict[str, RegularizerConfig]:
        """Name -> table of each regularizer in use, in the order in which they are applied."""
        return {name: table for name in type(self).model_fields if (table := getattr(self, name)) is not None}

    def learned_from(self) -> tuple[str, ...]:
        return tuple(name for table in self.present.values() for name in table.learned_from())


@cache
def _extended(base: type[Regularizers], own: tuple[tuple[str, type[RegularizerConfig]], ...]) -> type[Regularizers]:
    """A subclass with a field for each table of the user's own code; the same one for the same tables."""
    fields: dict[str, Any] = {key: (table | None, None) for key, table in own}
    return create_model(base.__name__, __base__=base, **fields)
