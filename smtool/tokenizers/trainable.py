"""Open an autoencoder that `train-ae` can train further."""

from pathlib import Path

from smtool.checkpoints.tensor_file import TensorFile
from smtool.checkpoints.transformers.read import is_transformer
from smtool.errors import CheckpointError
from smtool.networks.layers import DownsamplePad
from smtool.networks.trainable import TrainableAutoencoder
from smtool.tokenizers.open import Found, identify, open_tokenizer


def open_trainable(
    name: str | Path,
    *,
    device: str = "cpu",
    downsample_pad: DownsamplePad | None = None,
    weights_dir: Path | None = None,
) -> TrainableAutoencoder:
    """Open an autoencoder of a kind that `train-ae` can train, frozen and in eval mode, with float32 weights.

    downsample_pad: padding of an SD-VAE; None: that of its file. weights_dir: searched first for the frozen encoder of an RAE.
    Raises CheckpointError for any other tokenizer, for a transformer, and if there is nothing of this name.
    """
    found = identify(name)
    _refuse_transformers(found)
    opened = open_tokenizer(name, device=device, downsample_pad=downsample_pad, weights_dir=weights_dir)
    if not isinstance(opened, TrainableAutoencoder):
        raise CheckpointError(
            f"{found.place} is {opened.architecture}, which `train-ae` cannot train.",
            hint="It can train the SD-VAE (AutoencoderKL of diffusers, LDM, smtool), DC-AE, TAESDs, RAEs, epsilon-VAEs.",
        )
    return opened


def _refuse_transformers(found: Found) -> None:
    ours = found.kind == "diffusion"
    theirs = found.kind == "other" and found.path is not None and is_transformer(TensorFile(found.path).shapes)
    if ours or theirs:
        known = found.metadata.get("autoencoder_path")
        raise CheckpointError(
            f"{found.place} is a diffusion transformer, but an autoencoder is needed.",
            hint=f"It was trained on latents of {known}." if known else "Pass the autoencoder of its latents.",
        )
