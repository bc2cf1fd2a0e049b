"""The regularizers. To add one, write a file with its recipe table and module, and add one line to `Regularizers`."""

from smtool.config import LossConfig
from smtool.regularizers.base import Encoding, Pair, Regularizer, RegularizerConfig, Shapes
from smtool.regularizers.dsm import DSM
from smtool.regularizers.eq_vae import EQVAE
from smtool.regularizers.esm import ESM
from smtool.regularizers.kl import KL
from smtool.regularizers.scale_equivariance import ScaleEquivariance

__all__ = [
    "DSM",
    "EQVAE",
    "ESM",
    "KL",
    "Encoding",
    "Pair",
    "Regularizer",
    "RegularizerConfig",
    "Regularizers",
    "ScaleEquivariance",
    "Shapes",
]


class Regularizers(LossConfig):
    """The [regularizers.*] tables. A regularizer is used if its table is present."""

    kl: KL | None = None
    esm: ESM | None = None
    dsm: DSM | None = None
    scale_equivariance: ScaleEquivariance | None = None
    eq_vae: EQVAE | None = None

    @property
    def present(self) -> dict[str, RegularizerConfig]:
        """Name -> table of each regularizer in use, in the order in which they are applied."""
        return {name: table for name in type(self).model_fields if (table := getattr(self, name)) is not None}

    def learned_from(self) -> tuple[str, ...]:
        return tuple(name for table in self.present.values() for name in table.learned_from())
