"""Memory and time of activation checkpointing and of tiles; the yardstick is the plain step or the whole image.

Peak memory is that of the tensors, counted on the meta device (`smtool.training.activation_memory`), because a process does not
return what its allocator keeps. The results are equal
(tests/networks/test_recompute.py) or differ as docs/how-to/large-images.md says.
"""

from collections.abc import Callable

import torch

from benchmarks import Row, race
from smtool.networks.recompute import recompute_activations
from smtool.networks.sd_vae import SDVAE
from smtool.networks.shapes_only import shapes_only
from smtool.networks.sit import SiT
from smtool.tokenizers.tiled import Tiled
from smtool.training.activation_memory import peak_bytes

BATCH, SIDE = 2, 64
LARGE, TILE = 384, 192
AUTOENCODER = SDVAE(downsample=4, latent_channels=4, channels=(32, 64, 64), norm_groups=8)
TRANSFORMER = SiT(size="custom", depth=6, width=128, heads=4, patch=2)
LATENT = (4, 32, 32)


def run() -> list[Row]:
    return [*_steps("SD-VAE, 64 px", _autoencoder), *_steps("SiT of 6 blocks, 256 tokens", _transformer), *_decoding()]


def _steps(name: str, make: Callable[[str], tuple[torch.nn.Module, Callable[[torch.nn.Module], torch.Tensor]]]) -> list[Row]:
    """A forward and backward pass with and without recomputing the activations."""
    candidates: dict[str, Callable[[], object]] = {}
    memory = {}
    for way in ("plain", "checkpoint"):
        network, loss = make("cpu")
        with shapes_only():
            bare, loss_of_shapes = make("meta")
        bare.requires_grad_(True)
        if way == "checkpoint":
            recompute_activations(network)
            recompute_activations(bare)
        candidates[way] = lambda network=network, loss=loss: loss(network).backward()  # type: ignore[misc]
        memory[way] = peak_bytes(lambda bare=bare, loss=loss_of_shapes: loss(bare).backward()) / 2**20  # type: ignore[misc]
    times = race(candidates, repeats=3, warmup=1)
    return [
        Row(f"{name}: activations with memory = checkpoint", memory["checkpoint"], "MiB", memory["plain"], "plain", aim=2),
        Row(f"{name}: step with memory = checkpoint", times["checkpoint"], "ms", times["plain"], "plain", aim=0.7),
    ]


def _autoencoder(device: str) -> tuple[torch.nn.Module, Callable[[torch.nn.Module], torch.Tensor]]:
    images = torch.zeros(BATCH, 3, SIDE, SIDE, device=device)

    def loss(network: torch.nn.Module) -> torch.Tensor:
        decoded: torch.Tensor = network.decode(network.encode(images).mean)  # type: ignore[operator]
        return decoded.square().mean()

    return AUTOENCODER.build(), loss


def _transformer(device: str) -> tuple[torch.nn.Module, Callable[[torch.nn.Module], torch.Tensor]]:
    x, t = torch.zeros(BATCH, *LATENT, device=device), torch.zeros(BATCH, device=device)

    def loss(network: torch.nn.Module) -> torch.Tensor:
        output: torch.Tensor = network(x, t, None).output
        return output.square().mean()

    return TRANSFORMER.build(LATENT, 0), loss


def _decoding() -> list[Row]:
    """One image decoded whole and in tiles. Tiles need the memory of one tile, of the blended image and of its weights."""
    network = AUTOENCODER.build().eval().requires_grad_(False)
    cells, part = LARGE // network.downsample, TILE // network.downsample
    image = 3 * LARGE * LARGE * 4 / 2**20
    memory = {"whole": _decoding_mib(cells), "tiles": _decoding_mib(part) + image}
    latents = torch.zeros(1, 4, cells, cells)
    with torch.no_grad():
        times = race({"whole": lambda: network.decode(latents), "tiles": lambda: Tiled(network, TILE).decode(latents)}, repeats=3,
                     warmup=1)
    what = f"SD-VAE, {LARGE} px decoded in tiles of {TILE}"
    return [
        Row(f"{what}: tensors", memory["tiles"], "MiB", memory["whole"], "the whole image", aim=3),
        Row(f"{what}: time", times["tiles"], "ms", times["whole"], "the whole image", aim=0.5),
    ]


def _decoding_mib(cells: int) -> float:
    with shapes_only():
        network = AUTOENCODER.build()
    latents = torch.zeros(1, 4, cells, cells, device="meta")
    with torch.no_grad():
        return peak_bytes(lambda: network.decode(latents)) / 2**20
