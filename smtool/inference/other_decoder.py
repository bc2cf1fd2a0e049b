"""Decodes the latents of a checkpoint of train-dit with another autoencoder than its own."""

from dataclasses import replace

from smtool.errors import CheckpointError
from smtool.image_shape import ImageSize
from smtool.inference.diffusion_model import DiffusionModel
from smtool.inference.sampling import Decoder
from smtool.networks.tokenizer import Tokenizer
from smtool.tokenizers import identify, open_tokenizer


def decoded_by(model: DiffusionModel, autoencoder: str, device: str = "cpu") -> DiffusionModel:
    """The model with another autoencoder as decoder. Transformer and latent statistics remain those of the checkpoint.

    autoencoder: a name for `open_tokenizer`. Raises CheckpointError if it has no decoder, or if latents or images of its own have
    another shape than those of the checkpoint.
    """
    place, channels = identify(autoencoder).place, model.autoencoder.image_channels
    size = ImageSize(*(cells * model.autoencoder.downsample for cells in model.latent_shape[1:]))
    opened = open_tokenizer(place, device=device, image_size=size, image_channels=channels)
    if not opened.can_decode:
        raise CheckpointError(f"{place} only encodes, so it cannot decode samples.", hint="Pass an autoencoder.")
    found = _latent_shape(opened, size)
    if found != model.latent_shape or opened.image_channels != channels:
        raise CheckpointError(
            f"{place} turns images of {opened.image_channels}x{size.words} into latents of {_words(found)}, but the transformer "
            f"samples latents of {_words(model.latent_shape)} for images of {channels}x{size.words}.",
            hint="Pass an autoencoder with latents of this shape, such as a fine-tune of the transformer's own.",
        )
    return replace(model, autoencoder=opened)


def other_decoder(model: DiffusionModel) -> Decoder | None:
    """The decoder of a model for the passport of its samples; None if it is that of the checkpoint's own autoencoder."""
    opened = model.autoencoder
    if opened.digest == model.metadata["autoencoder"]["digest"]:
        return None
    return Decoder(path=opened.source, digest=opened.digest, learned_from=opened.learned_from)


def _latent_shape(tokenizer: Tokenizer, size: ImageSize) -> tuple[int, int, int]:
    try:
        return tokenizer.latent_shape(*size)
    except ValueError as error:
        raise CheckpointError(f"{tokenizer.source} does not fit the images of this transformer: {error}.") from error


def _words(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))
