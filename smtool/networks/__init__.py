"""Networks and their recipe sections; no loss and no file.

The unions say what a recipe's [model] may be. A new member is one file and one name here, and the tests of all members
(tests/networks/test_autoencoders.py, test_backbones.py) run on it too.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from smtool.networks.sd_vae import SDVAE
from smtool.networks.sit import SiT
from smtool.networks.uvit import UViT


def _sd_vae_unless_told(table: Any) -> Any:
    """`kind` may be left out of the [model] of train-ae, as in recipes from before there was a choice."""
    return {"kind": "sd-vae", **table} if isinstance(table, dict) else table


AnyAutoencoder = Annotated[SDVAE, Field(discriminator="kind"), BeforeValidator(_sd_vae_unless_told)]
"""What `train-ae` trains. A member builds a Tokenizer with an encoder_last_layer and a decoder_last_layer."""
AnyBackbone = Annotated[SiT | UViT, Field(discriminator="kind")]
"""What `train-dit` trains. A member builds a LatentTransformer."""

__all__ = ["AnyAutoencoder", "AnyBackbone"]
