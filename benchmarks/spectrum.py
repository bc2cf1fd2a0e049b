"""The block low-pass and the ESM loss, compared with a direct implementation of the released procedure that uses torch-dct.

Shapes of the paper: a batch of 12 (one GPU's images on CelebA), 256 px; f8d4 latents 4x32x32, f16d16 latents 16x16x16.
"""

from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
import torch_dct
from torch import Tensor

from benchmarks import Row, timings
from smtool.spectrum import block_low_pass, esm_loss

BATCH = 12
REPEATS = 40


def run() -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, 256, 256, generator=generator)
    f8, f16 = torch.randn(BATCH, 4, 32, 32, generator=generator), torch.randn(BATCH, 16, 16, 16, generator=generator)
    return [
        low_pass_row("low-pass of images and f8 latents", [images, f8]),
        low_pass_row("low-pass of images and f16 latents", [images, f16]),
        low_pass_row("low-pass of f8 latents alone", [f8]),
        low_pass_row("low-pass of f16 latents alone", [f16]),
        esm_row("ESM forward and backward, f8", images, f8, aim=2.5),
        esm_row("ESM forward and backward, f16", images, f16, aim=15),
    ]


def low_pass_row(name: str, tensors: list[Tensor]) -> Row:
    for x in tensors:
        torch.testing.assert_close(block_low_pass(x, 8), plain_low_pass(x, 8), rtol=0, atol=1e-5)
    times = timings(
        {
            "plain": lambda: [plain_low_pass(x, 8) for x in tensors],
            "ours": lambda: [block_low_pass(x, 8) for x in tensors],
        },
        repeats=REPEATS,
    )
    return compared(name, times, aim=10)


def esm_row(name: str, images: Tensor, latents: Tensor, *, aim: float) -> Row:
    torch.testing.assert_close(esm_loss(images, latents), plain_esm(images, latents), rtol=1e-4, atol=1e-6)

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        z = latents.clone().requires_grad_()
        return lambda: loss(images, z).backward()

    times = timings({"plain": step(plain_esm), "ours": step(esm_loss)}, repeats=2 * REPEATS)
    return compared(name, times, aim=aim)


def compared(name: str, times: dict[str, list[float]], *, aim: float) -> Row:
    ours, plain = times["ours"], times["plain"]
    return Row(name, median(ours), "ms", median(plain), "direct, torch-dct", aim, best_ratio=min(plain) / min(ours))


def plain_low_pass(x: Tensor, rows_removed: int) -> Tensor:
    """Split into tiles, transform, zero, transform back, reassemble (released-code.md#dsm)."""
    batch, channels, height, width = x.shape
    tiles = x.reshape(batch, channels, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
    u = torch.arange(8, device=x.device)
    kept = torch_dct.dct_2d(tiles, norm="ortho") * (u[:, None] + u < 15 - rows_removed)
    return torch_dct.idct_2d(kept, norm="ortho").permute(0, 1, 2, 4, 3, 5).reshape(x.shape)


def plain_esm(images: Tensor, latents: Tensor, delta: float = 1.0) -> Tensor:
    """The released loss, step by step (released-code.md#esm)."""
    height, width = latents.shape[-2:]
    if height != 32:
        taps = torch.exp(-(torch.arange(-3, 4, dtype=images.dtype) ** 2) / (2 * 1.2**2))
        kernel = taps[:, None] * taps
        images = F.conv2d(images, (kernel / kernel.sum()).expand(3, 1, 7, 7), padding=3, groups=3)
    images = F.interpolate(images, size=(height, width), mode="bicubic", align_corners=False)
    target = plain_bands(images) * torch.arange(1, 17) ** delta
    shares = []
    for bands in (target, plain_bands(latents)):
        compressed = torch.log(1 + bands + 1e-8)
        shares.append(compressed / (compressed.sum(1, keepdim=True) + 1e-8))
    p, q = shares
    return (p * (torch.log(p + 1e-8) - torch.log(q + 1e-8))).sum(1).mean()


def plain_bands(x: Tensor) -> Tensor:
    x = x - x.mean((-2, -1), keepdim=True)
    power = torch_dct.dct_2d(x, norm="ortho").square().mean(1).clamp(min=1e-8).flatten(1)
    power = torch.cat([torch.zeros_like(power[:, :1]), power[:, 1:]], 1)
    i, j = torch.arange(x.shape[-2]), torch.arange(x.shape[-1])
    radius = (i[:, None] ** 2 + j**2).float().sqrt().flatten()
    ring = (16 * radius / radius[-1]).long().clamp(max=15)
    total = torch.zeros(len(x), 16).index_add(1, ring, power)
    return total / (torch.bincount(ring, minlength=16) + 1e-8)
