"""Fold an affine map of every latent channel into the weights of an SD-VAE."""

import torch
from torch import Tensor

from smtool.networks.sd_vae import Autoencoder


@torch.no_grad()
def folded(autoencoder: Autoencoder, scale: Tensor, shift: Tensor) -> Autoencoder:
    """An autoencoder with the latents scale * z + shift and the same reconstructions, to rounding.

    scale, shift: (C,), scale not 0. The posterior remains Gaussian: its mean is mapped, its logvar rises by 2 log |scale| (before
    it is clamped to LOGVAR_RANGE). Both maps are in the 1x1 convolutions between encoder and decoder, which have no padding: in
    the decoder's 3x3 convolution, zeros at the edges would stand for another latent. A network without these convolutions gets
    them. The result has the settings of `autoencoder`, except its statistics, which are None.
    """
    config = autoencoder.config.model_copy(update={"quant_convs": True})
    result = config.build().to(autoencoder.device)
    assert result.quant_conv is not None and result.post_quant_conv is not None
    weights = autoencoder.state_dict()
    channels = autoencoder.latent_channels
    for name, width in (("quant_conv", 2 * channels), ("post_quant_conv", channels)):
        weights.setdefault(f"{name}.weight", torch.eye(width)[..., None, None])
        weights.setdefault(f"{name}.bias", torch.zeros(width))
    result.load_state_dict(weights)
    factor, offset = scale.double().to(autoencoder.device), shift.double().to(autoencoder.device)
    moments, inward = result.quant_conv, result.post_quant_conv
    assert moments.bias is not None and inward.bias is not None
    rows = torch.cat([factor, torch.ones_like(factor)])
    added = torch.cat([offset, 2 * factor.abs().log()])
    moments.weight.copy_(moments.weight.double() * rows.view(-1, 1, 1, 1))
    moments.bias.copy_(moments.bias.double() * rows + added)
    matrix = inward.weight.double()[..., 0, 0] / factor
    inward.weight.copy_(matrix[..., None, None])
    inward.bias.copy_(inward.bias.double() - matrix @ offset)
    result.label, result.source, result.recipe = autoencoder.label, autoencoder.source, autoencoder.recipe
    result.learned_from = autoencoder.learned_from
    return result.eval().requires_grad_(False)
