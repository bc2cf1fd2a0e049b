"""Cost of ESM and DSM relative to the training step that they are part of; the yardstick is the step without them.

The fraction of a step is ours / yardstick = 1 / ratio. A small network on 64 px, as in the top-level recipes, is the worst case:
at the paper's widths the step costs hundreds of times more, while the cost of ESM and DSM is the same.

The last row is a step with LPIPS (VGG16, random weights) and a PatchGAN against the same step without a cut at the decodings: the
ratio of gradient norms then takes two more backward passes, through both networks. The losses are compared first.
"""

import warnings
from collections.abc import Callable

import lpips
import torch

from benchmarks import Row, race, timings
from smtool.data.batches import ImageBatch
from smtool.features.frozen import Frozen
from smtool.networks.posterior import Posterior
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import streams
from smtool.regularizers import DSM, ESM, Encoding, Pair, Regularizer, Shapes
from smtool.tasks.adversary import Adversary
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction

BATCH, SIDE = 16, 64
SHAPES = Shapes((BATCH, 3, SIDE, SIDE), (BATCH, 4, SIDE // 4, SIDE // 4))
SMALL = SDVAE(downsample=4, latent_channels=4, channels=(16, 32, 32), norm_groups=8)


def run() -> list[Row]:
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    autoencoder = SMALL.build()
    methods = {"ESM": ESM().build(SHAPES, None), "DSM": DSM(rows_removed=(8, 10, 12)).build(SHAPES, None)}
    candidates: dict[str, Callable[[], object]] = {"step": lambda: _step(autoencoder, images)}
    candidates |= {name: _alone(method, images) for name, method in methods.items()}
    times = race(candidates, repeats=15)
    shares = {name: f"{name} ({100 * times[name] / times['step']:.1f} % of a step)" for name in methods}
    rows = [Row(shares[name], times[name], "ms", times["step"], "the plain training step") for name in methods]
    return [*rows, adversarial_row()]


def adversarial_row(batch: int = 4, repeats: int = 5) -> Row:
    """A step of the autoencoder with LPIPS and the adaptive weight of the discriminator."""
    tasks = {"cut": _adversarial_task(AutoencoderTask), "whole graph": _adversarial_task(_WithoutCut)}
    images = torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = [_adversarial_step(task, images) for task in tasks.values()]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-7)
    candidates: dict[str, Callable[[], object]] = {
        name: lambda task=task: _adversarial_step(task, images) for name, task in tasks.items()
    }
    times = timings(candidates, repeats=repeats, warmup=1)
    ours, theirs = (sorted(times[name]) for name in tasks)
    middle = repeats // 2
    return Row(
        "step with LPIPS and PatchGAN", ours[middle], "ms", theirs[middle], "the ratio by two more backward passes",
        best_ratio=theirs[0] / ours[0],
    )  # fmt: skip


class _WithoutCut(AutoencoderTask):
    """Differentiates all terms together, as before the cut."""

    def _cut(self, decodings: list[torch.Tensor], step: int) -> None:
        return None


class _VGG(Frozen):
    """LPIPS with random weights."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().__init__(lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.network(x, y).flatten()


def _adversarial_task(kind: type[AutoencoderTask]) -> AutoencoderTask:
    adversary = Adversary(start=0)
    torch.manual_seed(0)
    return kind(
        SMALL.build(), {}, reconstruction=Reconstruction(), perceptual=(_VGG(), 0.5),
        adversary=adversary, discriminator=adversary.build().requires_grad_(False), flip=False,
    )  # fmt: skip


def _adversarial_step(task: AutoencoderTask, images: torch.Tensor) -> torch.Tensor:
    """The gradient at the first weight of the encoder, after a whole backward pass."""
    task.autoencoder.zero_grad(set_to_none=True)
    batch = ImageBatch(images, None, tuple(map(str, range(len(images)))))
    task.loss("autoencoder", batch, streams(0, 0, "autoencoder", batch=len(images)), 0).total.backward()
    first = next(task.autoencoder.parameters()).grad
    assert first is not None
    return first


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
