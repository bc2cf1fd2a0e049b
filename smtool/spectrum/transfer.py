"""Band transfer: which image frequencies answer when one band of latent frequencies is perturbed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from smtool.spectrum.dct import dct2, full_precision, idct2, without_autocast

LEAST_FRACTION_OF_ENERGY = 1e-9
LARGEST_MOVE = 0.05


@dataclass(frozen=True)
class BandTransfer:
    """The response energies of a decoder, in two readings of the same responses, and the numbers read from them.

    absolute_energy: (K, K + 1), latent band i to image band j at the same cycles per image; column K lies above the latent's
    Nyquist. relative_energy: (K, K), image bands at the same fraction of Nyquist. own_energy: (K,), energy of the latents' band
    itself, per image. area: image pixels per latent pixel, f^2. self_check: L1 distance by which one row of `absolute` moves at
    a third of the perturbation.
    """

    absolute_energy: Tensor
    relative_energy: Tensor
    own_energy: Tensor
    area: float
    self_check: float

    @property
    def absolute(self) -> Tensor:
        """(K, K + 1), rows sum to 1; a row that is not answered is 0."""
        return self._rows(self.absolute_energy)

    @property
    def relative(self) -> Tensor:
        """(K, K), rows sum to 1; a row that is not answered is 0. To be shown only beside `absolute`: a convolution cannot
        stretch frequencies, so real decoders sit at chance here (definition sheet, section 4)."""
        return self._rows(self.relative_energy)

    @property
    def answered(self) -> Tensor:
        """(K,): rows with at least 1e-9 of all energy. A band whose only cell is DC (the first, when K = h) is never answered."""
        row = self.absolute_energy.sum(1)
        return row > LEAST_FRACTION_OF_ENERGY * row.sum()

    @property
    def fraction(self) -> float:
        """Mean fraction of a latent band's response that stays in its own image band (absolute reading)."""
        return self._fraction(self.absolute)

    @property
    def kappa(self) -> float:
        """`fraction` beyond chance, (fraction - chance) / (1 - chance): the headline. 1 is perfect; nan with one answered row."""
        return self._kappa(self.absolute)

    @property
    def relative_fraction(self) -> float:
        return self._fraction(self.relative)

    @property
    def relative_kappa(self) -> float:
        return self._kappa(self.relative)

    @property
    def above(self) -> float:
        """Mean fraction of the response above the latent's Nyquist."""
        return self.absolute[self.answered][:, -1].mean().item()

    @property
    def down(self) -> float:
        """Mean fraction of the response in image bands below the latent band."""
        return self.absolute[:, :-1].tril(-1)[self.answered].sum(1).mean().item()

    @property
    def row_gain(self) -> Tensor:
        """(K,): response energy over the band's own energy and over f^2; 1 for a decoder that keeps amplitudes."""
        return self.absolute_energy.sum(1) / self.own_energy.clamp(min=torch.finfo(torch.float64).tiny) / self.area

    @property
    def is_linear(self) -> bool:
        """False where a smaller perturbation gives another row: "decoder is not linear at this scale"."""
        return self.self_check <= LARGEST_MOVE

    def _rows(self, energy: Tensor) -> Tensor:
        return torch.where(self.answered[:, None], energy / energy.sum(1, keepdim=True), 0.0)

    def _fraction(self, rows: Tensor) -> float:
        return rows.diagonal()[self.answered].mean().item()

    def _kappa(self, rows: Tensor) -> float:
        answered = self.answered
        chance = rows[answered].mean(0)[:len(rows)][answered].mean().item()
        return (self._fraction(rows) - chance) / (1 - chance) if int(answered.sum()) > 1 else math.nan


def band_transfer(
    decode: Callable[[Tensor], Tensor],
    latents: Tensor,
    bands: int = 8,
    *,
    generator: torch.Generator,
    eps: float = 0.1,
    batch: int = 16,
    unperturbed: Tensor | None = None,
) -> BandTransfer:
    """Perturb one latent band at a time and see in which image bands decode(z + e) - decode(z) lies.

    decode: latents (B, C, h, w) to images (B, channels, H, W), called in float32 (float64 stays), `bands` + 2 times per latent,
    once less where `unperturbed`, the decoding of the latents as they are, is given.
    latents: (N, C, h, w); 16 suffice. K = min(bands, h, w) bands; latent cell (u, v) has band floor(K |(u / h, v / w)|), the
    corners are in the last. e: white noise in the band's DCT cells without (0, 0), per channel eps times its rms per cell there,
    drawn on the generator's device.
    Source: definition sheet, section 4. Oracle: hand-made decoders whose answer is known (tests/spectrum/test_transfer.py).
    """
    if latents.ndim != 4 or len(latents) == 0 or bands < 1:
        raise ValueError(f"band_transfer needs latents (N, C, h, w) and bands >= 1, but got {tuple(latents.shape)} and {bands}")
    latents = full_precision(latents)
    num_bands = min(bands, *latents.shape[-2:])
    latent_map = band_of_cell(latents.shape[-2], latents.shape[-1], num_bands).to(latents.device)
    with torch.no_grad(), without_autocast(latents):
        noise = _noise_of_bands(latents, latent_map, num_bands, generator)
        images = torch.cat([full_precision(decode(z)) for z in latents.split(batch)]) if unperturbed is None else unperturbed
        absolute_map, relative_map = _image_bands(latent_map, images.shape[-2], images.shape[-1], num_bands)

        def response(band: int, size: float) -> Tensor:
            """Energy per image cell, mean over images, of D(z + e) - D(z) over size^2: (H, W)."""
            perturbed = latents + size * idct2(noise * (latent_map == band))
            total = torch.zeros(images.shape[-2:], dtype=torch.float64, device=images.device)
            for z, unperturbed in zip(perturbed.split(batch), images.split(batch), strict=True):
                total += dct2(full_precision(decode(z)) - unperturbed).double().square().sum((0, 1))
            return total / size**2 / len(latents)

        energy = torch.stack([response(band, eps) for band in range(num_bands)])
        absolute = _gather(energy, absolute_map, num_bands + 1)
        loudest = int(absolute.sum(1).argmax())
        if not absolute[loudest].sum() > 0:
            raise ValueError("decode gives the same images whatever is added to the latents: there is no response to measure")
        again = _gather(response(loudest, eps / 3)[None], absolute_map, num_bands + 1)[0]
    own = noise.double().square().sum((0, 1)) / len(latents)
    return BandTransfer(
        absolute_energy=absolute,
        relative_energy=_gather(energy, relative_map, num_bands),
        own_energy=_gather(own[None], latent_map, num_bands)[0],
        area=energy[0].numel() / latent_map.numel(),
        self_check=(absolute[loudest] / absolute[loudest].sum() - again / again.sum()).abs().sum().item(),
    )


def _noise_of_bands(latents: Tensor, latent_map: Tensor, num_bands: int, generator: torch.Generator) -> Tensor:
    """DCT coefficients (N, C, h, w): white noise times the channel's rms per cell in the cell's band; nothing at DC."""
    white = torch.randn(latents.shape, generator=generator, dtype=latents.dtype, device=generator.device).to(latents.device)
    white[..., 0, 0] = 0
    power = dct2(latents).square().mean(0)                                                  # (C, h, w)
    power[:, 0, 0] = 0
    ones = torch.ones_like(power[:1])
    ones[:, 0, 0] = 0
    per_band = _gather(power, latent_map, num_bands) / _gather(ones, latent_map, num_bands).clamp(min=1)
    return white * per_band.sqrt()[:, latent_map.flatten().cpu()].view_as(power).to(latents)


@lru_cache(maxsize=64)
def band_of_cell(height: int, width: int, num_bands: int) -> Tensor:
    """(height, width) int64 on the CPU: floor(K |(u / height, v / width)|), the corners in the last band.

    Computed in whole numbers (a float64 root of whole numbers below 2^52 never slips over one). Cached: treat it as read-only.
    """
    with torch.inference_mode(False), torch.device("cpu"):
        u, v = torch.arange(height)[:, None] * width, torch.arange(width) * height
        whole = num_bands**2 * (u.square() + v.square())
        return (whole.double().sqrt().floor().long() // (height * width)).clamp(max=num_bands - 1)


def _image_bands(latent_map: Tensor, height: int, width: int, num_bands: int) -> tuple[Tensor, Tensor]:
    """The band of every image cell, (H, W): absolute (that of the same latent cell, above its Nyquist num_bands) and relative."""
    h, w = latent_map.shape
    if height < h or width < w:
        raise ValueError(f"decode made {height}x{width} images from {h}x{w} latents; bands need images at least as large")
    absolute = latent_map.new_full((height, width), num_bands)
    absolute[:h, :w] = latent_map
    rows, columns = (torch.arange(big, device=latent_map.device) * small // big for big, small in ((height, h), (width, w)))
    return absolute, latent_map[rows[:, None], columns]


def _gather(energy: Tensor, band_map: Tensor, num_bands: int) -> Tensor:
    """Sum (rows, H, W) over the cells of each band: (rows, num_bands), float64 on the CPU."""
    total = torch.zeros(len(energy), num_bands, dtype=torch.float64, device="cpu")
    return total.index_add(1, band_map.flatten().cpu(), energy.double().flatten(1).cpu())
