"""Cost of ESM and DSM relative to the training step that they are part of; the yardstick is the step without them.

The fraction of a step is ours / yardstick = 1 / ratio. A small network on 64 px, as in the top-level recipes, is the worst case:
at the paper's widths the step costs hundreds of times more, while the cost of ESM and DSM is the same.
"""

from collections.abc import Callable

import torch

from benchmarks import Row, race
from smtool.networks.posterior import Posterior
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import streams
from smtool.regularizers import DSM, ESM, Encoding, Pair, Regularizer, Shapes

BATCH, SIDE = 16, 64
SHAPES = Shapes((BATCH, 3, SIDE, SIDE), (BATCH, 4, SIDE // 4, SIDE // 4))
SMALL = SDVAE(downsample=4, latent_channels=4, channels=(16, 32, 32), norm_groups=8)


def run() -> list[Row]:
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    autoencoder = SMALL.build().to(memory_format=torch.channels_last)
    methods = {"ESM": ESM().build(SHAPES, None), "DSM": DSM(rows_removed=(8, 10, 12)).build(SHAPES, None)}
    candidates: dict[str, Callable[[], object]] = {"step": lambda: _step(autoencoder, images)}
    candidates |= {name: _alone(method, images) for name, method in methods.items()}
    times = race(candidates, repeats=15)
    shares = {name: f"{name} ({100 * times[name] / times['step']:.1f} % of a step)" for name in methods}
    return [Row(shares[name], times[name], "ms", times["step"], "the plain training step") for name in methods]


def _step(autoencoder: torch.nn.Module, images: torch.Tensor) -> None:
    autoencoder.zero_grad(set_to_none=True)
    posterior = autoencoder.encode(images)
    decoded = autoencoder.decode(posterior.sample(torch.zeros_like(posterior.mean)))
    (decoded - images).abs().mean().backward()


def _alone(method: Regularizer, images: torch.Tensor) -> Callable[[], None]:
    """The method's own computation in a step, forward and backward, on random latents in place of the encoder's."""
    latents = torch.randn(BATCH, 4, SIDE // 4, SIDE // 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    encoding = Encoding(images, Posterior(latents, torch.zeros_like(latents)), latents)

    def work() -> None:
        draw = method.draw(streams(0, 0, "autoencoder", batch=BATCH), SHAPES)
        (pair,) = method.before_decode([Pair(images, latents)], draw)
        penalty = method.penalty(encoding, draw)
        (pair.latents.sum() if penalty is None else penalty).backward()

    return work
