"""JPEG files of prepared images decoded on a GPU, by nvJPEG through torchvision.

nvJPEG and the library of Pillow, which decodes on the CPU, round differently and enlarge halved color channels differently, so
that pixels differ by some levels.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smtool.data.images.card import DatasetCard
from smtool.devices import reason_of
from smtool.errors import RecipeError

_HINT = 'Use data.decode = "cpu".'


def refuse_undecodable(card: DatasetCard, device: str) -> None:
    """Raise RecipeError if images of this data set cannot be decoded on the device. It decodes one image."""
    key = 'data.decode = "gpu"'
    if torch.device(device).type != "cuda":
        raise RecipeError(f"{key} needs an NVIDIA GPU, but this run is on {device}.", hint=_HINT)
    if not card.image_format.startswith("jpeg"):
        raise RecipeError(
            f"{key} needs JPEG files, but the images are stored as {card.image_format}.",
            hint=f"{_HINT} Or prepare them again: smtool prepare {card.source.name} --size {card.image_size} --format jpeg:95",
        )
    if card.mode != "RGB":
        raise RecipeError(f"{key} needs images of three channels, but their mode is {card.mode}.", hint=_HINT)
    refuse_decoder(device)


def refuse_decoder(device: str) -> None:
    """Raise RecipeError if torchvision is not there or cannot decode on the device."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    try:
        decoded_jpegs([file.getvalue()], device)
    except (ImportError, RuntimeError, AttributeError) as error:
        reason = f"torchvision cannot decode JPEG on {device} ({reason_of(error)})"
        raise RecipeError(f'data.decode = "gpu": {reason}.', hint=_HINT) from error


def decoded_jpegs(files: Sequence[bytes], device: str) -> list[Tensor]:
    """The images (3, H, W), uint8, on the device; gray becomes three equal channels. Raises RuntimeError for damaged files.

    torchvision's operators, not its function, which announces its end in every call. On a CPU they give Pillow's pixels.
    """
    from torchvision.io import ImageReadMode

    data = [torch.from_numpy(np.frombuffer(file, np.uint8).copy()) for file in files]
    mode, operators = ImageReadMode.RGB.value, torch.ops.image
    if torch.device(device).type == "cuda":
        found: list[Tensor] = operators.decode_jpegs_cuda(data, mode, torch.device(device))
        return found
    return [operators.decode_jpeg(one, mode, False) for one in data]
