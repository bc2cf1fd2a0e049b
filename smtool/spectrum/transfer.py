"""Band transfer: which image frequencies respond when one band of latent frequencies is perturbed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from smtool.devices import float64_device, in_float64
from smtool.spectrum.dct import dct2, full_precision, idct2, without_autocast

LEAST_FRACTION_OF_ENERGY = 1e-9
LARGEST_MOVE = 0.05


@dataclass(frozen=True)
class BandTransfer:
    """The response energies of a decoder, grouped into image bands in two ways, and the scores computed from them.

    absolute_energy: (K, K + 1), from latent band i to image band j at the same cycles per image; column K holds all frequencies
    above the latent's Nyquist frequency. relative_energy: (K, K), image bands at the same fraction of the Nyquist frequency.
    own_energy: (K,), energy of the latents in each band, per image. area: image pixels per latent pixel, f^2. self_check: L1
    distance between one row of `absolute` and the same row measured with a third of the perturbation.
    """

    absolute_energy: Tensor
    relative_energy: Tensor
    own_energy: Tensor
    area: float
    self_check: float

    @property
    def absolute(self) -> Tensor:
        """(K, K + 1); rows sum to 1, rows without response are 0."""
        return self._rows(self.absolute_energy)

    @property
    def relative(self) -> Tensor:
        """(K, K); rows sum to 1, rows without response are 0.

        Show it only beside `absolute`: a convolution cannot stretch frequencies, so real decoders are at chance level here
        (spectrum.md#band-transfer).
        """
        return self._rows(self.relative_energy)

    @property
    def answered(self) -> Tensor:
        """(K,) bool: rows with more than 1e-9 of all energy. A band whose only cell is DC (the first, if K = h) has none."""
        row = self.absolute_energy.sum(1)
        return row > LEAST_FRACTION_OF_ENERGY * row.sum()

    @property
    def fraction(self) -> float:
        """Mean fraction of a latent band's response that lies in the image band of the same cycles per image."""
        return self._fraction(self.absolute)

    @property
    def kappa(self) -> float:
        """The main score: `fraction` corrected for chance, (fraction - chance) / (1 - chance). 1 is perfect, 0 is chance.

        chance: mean over rows with response of `absolute` in the columns of those rows. nan with a single such row.
        """
        return self._kappa(self.absolute)

    @property
    def relative_fraction(self) -> float:
        """`fraction` of `relative` instead of `absolute`."""
        return self._fraction(self.relative)

    @property
    def relative_kappa(self) -> float:
        """`kappa` of `relative` instead of `absolute`."""
        return self._kappa(self.relative)

    @property
    def above(self) -> float:
        """Mean fraction of the response above the latent's Nyquist frequency."""
        return self.absolute[self.answered][:, -1].mean().item()

    @property
    def down(self) -> float:
        """Mean fraction of the response in image bands below the latent band."""
        return self.absolute[:, :-1].tril(-1)[self.answered].sum(1).mean().item()

    @property
    def row_gain(self) -> Tensor:
        """(K,): response energy divided by own_energy and by f^2; 1 for a decoder that keeps amplitudes."""
        return self.absolute_energy.sum(1) / self.own_energy.clamp(min=torch.finfo(torch.float64).tiny) / self.area

    @property
    def is_linear(self) -> bool:
        """Whether `self_check` is at most 0.05; otherwise the decoder is not linear at the size of the perturbation."""
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
    """Perturb one latent band at a time and measure in which image bands decode(z + e) - decode(z) lies.

    decode: maps latents (B, C, h, w) to images (B, channels, H, W) at least as large. It is called in float32 (float64 stays),
    K + 2 times per latent. latents: (N, C, h, w); 16 are enough. bands: K = min(bands, h, w); latent cell (u, v) is in band
    floor(K |(u / h, v / w)|), the corners are in the last. generator: draws e, on its own device. eps: size of e, which is white
    noise in the band's DCT cells except (0, 0), per channel eps times the channel's rms per cell in the band. batch: latents per
    call of decode. unperturbed: decode(latents) if known; saves one call per latent.

    Raises ValueError for latents of another shape, bands < 1, decoded images smaller than the latents, and a decoder that does
    not respond. Source: spectrum.md#band-transfer.
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
            """Energy of D(z + e) - D(z) per image cell, mean over images, divided by size^2: (H, W)."""
            perturbed = latents + size * idct2(noise * (latent_map == band))
            total = torch.zeros(images.shape[-2:], dtype=torch.float64, device=float64_device(images.device))
            for z, unperturbed in zip(perturbed.split(batch), images.split(batch), strict=True):
                total += in_float64(dct2(full_precision(decode(z)) - unperturbed)).square().sum((0, 1))
            return total / size**2 / len(latents)

        energy = torch.stack([response(band, eps) for band in range(num_bands)])
        absolute = _gather(energy, absolute_map, num_bands + 1)
        loudest = int(absolute.sum(1).argmax())
        if not absolute[loudest].sum() > 0:
            raise ValueError("decode returns the same images for all perturbed latents: there is no response to measure")
        again = _gather(response(loudest, eps / 3)[None], absolute_map, num_bands + 1)[0]
    own = in_float64(noise).square().sum((0, 1)) / len(latents)
    return BandTransfer(
        absolute_energy=absolute,
        relative_energy=_gather(energy, relative_map, num_bands),
        own_energy=_gather(own[None], latent_map, num_bands)[0],
        area=energy[0].numel() / latent_map.numel(),
        self_check=(absolute[loudest] / absolute[loudest].sum() - again / again.sum()).abs().sum().item(),
    )


def _noise_of_bands(latents: Tensor, latent_map: Tensor, num_bands: int, generator: torch.Generator) -> Tensor:
    """DCT coefficients (N, C, h, w): white noise times the channel's rms per cell in the cell's band; 0 at DC."""
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
    """The band of each cell, (height, width) int64 on the CPU: floor(K |(u / height, v / width)|), the corners in the last band.

    Exact: computed with integers, and the float64 root of an integer below 2^52 never rounds up to the next integer. The result
    is cached: treat it as read-only.
    """
    with torch.inference_mode(False), torch.device("cpu"):
        u, v = torch.arange(height)[:, None] * width, torch.arange(width) * height
        whole = num_bands**2 * (u.square() + v.square())
        return (whole.double().sqrt().floor().long() // (height * width)).clamp(max=num_bands - 1)


def _image_bands(latent_map: Tensor, height: int, width: int, num_bands: int) -> tuple[Tensor, Tensor]:
    """The band of every image cell, (H, W): absolute and relative.

    Absolute is the band of the same latent cell, or num_bands above the latent's Nyquist frequency. Relative is the band of the
    latent cell at the same fraction of the Nyquist frequency.
    """
    h, w = latent_map.shape
    if height < h or width < w:
        raise ValueError(f"decode returned {height}x{width} images for {h}x{w} latents; bands need images at least as large")
    absolute = latent_map.new_full((height, width), num_bands)
    absolute[:h, :w] = latent_map
    rows, columns = (torch.arange(big, device=latent_map.device) * small // big for big, small in ((height, h), (width, w)))
    return absolute, latent_map[rows[:, None], columns]


def _gather(energy: Tensor, band_map: Tensor, num_bands: int) -> Tensor:
    """Sum (rows, H, W) over the cells of each band: (rows, num_bands), float64 on the CPU."""
    total = torch.zeros(len(energy), num_bands, dtype=torch.float64, device="cpu")
    return total.index_add(1, band_map.flatten().cpu(), energy.double().flatten(1).cpu())
