"""Networks and their recipe tables, without losses and files.

The unions list the possible [model] tables of a recipe. To add a network, write one file and add one name here; the tests of all
members (tests/networks/test_autoencoders.py, test_backbones.py) then run on it too.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from smtool.networks.dc_ae import DCAE
from smtool.networks.dit_dh import DiTDH
from smtool.networks.epsilon_vae import EpsilonVAE
from smtool.networks.lightning_dit import LightningDiT
from smtool.networks.rae import RAE
from smtool.networks.sd_vae import SDVAE
from smtool.networks.sit import SiT
from smtool.networks.taesd import TAESD
from smtool.networks.uvit import UViT


def _sd_vae_unless_told(table: Any) -> Any:
    """Set kind = "sd-vae" where it is missing: the [model] table of train-ae may omit it, as in old recipes."""
    return {"kind": "sd-vae", **table} if isinstance(table, dict) else table


AnyAutoencoder = Annotated[
    SDVAE | TAESD | DCAE | RAE | EpsilonVAE, Field(discriminator="kind"), BeforeValidator(_sd_vae_unless_told)
]
"""[model] of `train-ae`. A member builds a TrainableAutoencoder."""
AnyBackbone = Annotated[SiT | UViT | LightningDiT | DiTDH, Field(discriminator="kind")]
"""[model] of `train-dit`. A member builds a LatentTransformer."""

__all__ = ["AnyAutoencoder", "AnyBackbone"]
