"""Evaluation protocols: how pixels are processed between decoder and score. Scores of different protocols are not comparable."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from smtool.features.pictures import ALPHA, Pictures, as_rgb, each
from smtool.spectrum.dct import constant

ProtocolName = Literal["clean", "paper", "adm"]
Resize = Literal["bicubic-antialias", "bilinear", "bilinear-tf1"]


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol.

    resize: to an extractor's input size. jpeg: quality at which images of both sets are coded, None for no codec (PNG, memory).
    posterior: the latent that is decoded. offset: the grey level that is 0 in Inception's normalized input. rounding: of decoded
    images to uint8. pairs: input of SSIM and LPIPS: uint8 images, or the decoder's output, which may exceed [-1, 1]. ssim:
    "valid": windows inside the image, on intensities that start at 0; "reflect": all windows of the reflect-padded image, on
    values clamped to [-1, 1] (torchmetrics).
    """

    name: ProtocolName
    resize: Resize
    jpeg: int | None
    posterior: Literal["mode", "sample"]
    offset: float
    rounding: Literal["nearest", "truncate"] = "nearest"
    pairs: Literal["uint8", "float"] = "uint8"
    ssim: Literal["valid", "reflect"] = "valid"

    @property
    def codec(self) -> str:
        return "none" if self.jpeg is None else f"jpeg:{self.jpeg} 4:2:0"

    @overload
    def coded(self, images: Tensor) -> Tensor: ...

    @overload
    def coded(self, images: Sequence[Tensor]) -> Sequence[Tensor]: ...

    def coded(self, images: Pictures) -> Pictures:
        """uint8 images of one to four channels after the codec. JPEG has no alpha: where there is any, `as_rgb` comes first."""
        quality = self.jpeg
        if quality is None:
            return images
        return each(images, lambda batch: jpeg_round_trip(as_rgb(batch) if batch.shape[1] in ALPHA else batch, quality))


PROTOCOLS: dict[ProtocolName, Protocol] = {
    # clean-fid (Parmar et al. 2022): PIL's bicubic on floats, with antialiasing
    "clean": Protocol("clean", "bicubic-antialias", jpeg=None, posterior="mode", offset=128.0),
    # the evaluation in Spectrum Matching's released code (released-code.md#evaluation): pytorch-fid on JPEG files, sampled
    # latents, SSIM and LPIPS on the decoder's floats (vae_trainer.py, branch DSM)
    "paper": Protocol("paper", "bilinear", jpeg=75, posterior="sample", offset=127.5, pairs="float", ssim="reflect"),
    # guided-diffusion's evaluator: the resize inside TensorFlow 1's Inception graph; pixels are truncated, as in ADM and REPA
    "adm": Protocol("adm", "bilinear-tf1", jpeg=None, posterior="mode", offset=128.0, rounding="truncate"),
}


def resized(images: Tensor, size: int, rule: Resize) -> Tensor:
    """uint8 or float images (B, C, H, W) in [0, 255] -> float32 (B, C, size, size), clipped to [0, 255], not rounded.

    bicubic-antialias: equals clean-fid's resizer (PIL's BICUBIC in mode F) up to float rounding.
    bilinear: half-pixel centres, no antialias, as torch and pytorch-fid.
    bilinear-tf1: TensorFlow 1's ResizeBilinear: output i reads input i * in / out, without half-pixel centres.
    """
    x = images.float()
    if x.shape[-2:] == (size, size):
        return x
    if rule == "bicubic-antialias":
        return F.interpolate(x, (size, size), mode="bicubic", align_corners=False, antialias=True).clamp(0.0, 255.0)
    if rule == "bilinear":
        return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
    rows, columns = (_tf1_matrix(side, size, dtype=x.dtype, device=x.device) for side in x.shape[-2:])
    return rows @ x @ columns.T


def jpeg_round_trip(images: Tensor, quality: int) -> Tensor:
    """uint8 images (B, 1 or 3, H, W) after JPEG coding and decoding with 4:2:0 chroma (PIL's default), on the same device."""
    if images.shape[1] not in (1, 3):
        raise ValueError(f"JPEG codes one or three channels, found {tuple(images.shape)}")
    decoded = [_through_jpeg(image, quality) for image in images.permute(0, 2, 3, 1).cpu().numpy()]
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous().to(images.device)


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer)).reshape(image.shape)


@constant
def _tf1_matrix(side: int, size: int) -> Tensor:
    """(size, side): row i interpolates between the two inputs around i * side / size; the last input is repeated at the end.

    Positions are float32, as in TensorFlow's kernel, because their rounding can change which inputs are used.
    """
    position = torch.arange(size, dtype=torch.float32) * torch.tensor(side / size, dtype=torch.float32)
    low = position.floor().long()
    high = (low + 1).clamp(max=side - 1)
    matrix = torch.zeros(size, side)
    rows = torch.arange(size)
    matrix[rows, low] += 1.0 - (position - low)
    matrix[rows, high] += position - low
    return matrix
