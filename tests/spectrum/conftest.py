"""Gaussian fields of known exponent, cropped from larger periodic fields (canvases): the ground truth for all fits."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

CHUNK = 160


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run on one thread: for thousands of small tensors, thread synchronization costs more than the computation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def canvas_noise(count: int, channels: int, side: int, *, seed: int) -> Tensor:
    """White complex coefficients on the half plane of a canvas, (count, channels, side, side // 2 + 1), from the seed.

    The contrast varies as in photographs: the log of its variance has a std of .48 over images (spectrum.md#power-law-fit).
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, channels, side, side // 2 + 1, generator=generator, dtype=torch.complex64)
    return noise * (0.24 * torch.randn(count, 1, 1, 1, generator=generator)).exp()


def cut_field(noise: Tensor, exponent: float, *, side: int) -> Tensor:
    """A side x side corner of the field of power spectral density f^-exponent, f in cycles per canvas pixel.

    The waves are summed only at the pixels of the corner. The conjugates of the first and last column lie in the same column;
    coefficients of all other columns count twice.
    """
    canvas = noise.shape[-2]
    squared = torch.fft.fftfreq(canvas).square()[:, None] + torch.fft.rfftfreq(canvas).square()
    squared[0, 0] = math.inf if exponent >= 0 else 0
    amplitude = torch.isfinite(squared).float() if exponent == 0 else squared ** (-exponent / 4)
    amplitude[:, 1:-1] *= math.sqrt(2)
    phase = torch.outer(torch.arange(side), torch.arange(canvas)) % canvas * (2 * math.pi / canvas)
    waves = torch.polar(torch.ones_like(phase), phase)
    return (waves @ (noise * amplitude) @ waves[:, :noise.shape[-1]].mT).real


def lower_canvas(noise: Tensor, side: int) -> Tensor:
    """The same noise on a coarser canvas of the same extent, which is ideal downsampling."""
    half = side // 2
    return torch.cat([noise[..., :half, :half + 1], noise[..., -half:, :half + 1]], dim=-2)


@pytest.fixture(scope="session")
def known_fields() -> Callable[..., dict[float, Tensor]]:
    """Fields (count, channels, side, side) of several exponents, from the same noise."""

    def make(count: int, channels: int, exponents: tuple[float, ...], *, side: int, canvas: int) -> dict[float, Tensor]:
        fields: dict[float, list[Tensor]] = {exponent: [] for exponent in exponents}
        for seed in range(count // CHUNK):
            noise = canvas_noise(CHUNK, channels, canvas, seed=seed)
            for exponent in exponents:
                fields[exponent].append(cut_field(noise, exponent, side=side))
        return {exponent: torch.cat(parts) for exponent, parts in fields.items()}

    return make


@pytest.fixture(scope="session")
def known_pairs() -> Callable[..., dict[tuple[float, float], tuple[Tensor, Tensor]]]:
    """By (exponent, delta): images (count, 3, 2 side, 2 side) of that exponent and latents (count, 4, side, side).

    The latents' field is the ideally downsampled images' field times f^delta in power, with its 3 channels mixed to 4.
    """

    def make(
        count: int, cells: tuple[tuple[float, float], ...], *, side: int, canvas: int
    ) -> dict[tuple[float, float], tuple[Tensor, Tensor]]:
        images: dict[float, list[Tensor]] = {exponent: [] for exponent, _ in cells}
        latents: dict[tuple[float, float], list[Tensor]] = {cell: [] for cell in cells}
        mix = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(torch.complex64)
        for seed in range(count // CHUNK):
            noise = canvas_noise(CHUNK, 3, 2 * canvas, seed=seed)
            latent_noise = torch.einsum("dc,ncuv->nduv", mix, lower_canvas(noise, canvas))
            for exponent in images:
                images[exponent].append(cut_field(noise, exponent, side=2 * side))
            for exponent, delta in cells:
                latents[exponent, delta].append(cut_field(latent_noise, exponent - delta, side=side))
        return {cell: (torch.cat(images[cell[0]]), torch.cat(latents[cell])) for cell in cells}

    return make
