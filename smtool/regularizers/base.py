"""What a regularizer is: a module that may act at four moments of an autoencoder's step, and by default acts at none."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from smtool.config import LossConfig
from smtool.networks.posterior import Posterior
from smtool.randomness import Streams
from smtool.training.terms import AdaptiveWeight


@dataclass(frozen=True)
class Shapes:
    """Shapes of a batch and of its latents: images (B, 3, H, W), latents (B, C, h, w), downsample = H / h."""

    images: tuple[int, int, int, int]
    latents: tuple[int, int, int, int]

    @property
    def downsample(self) -> int:
        return self.images[-1] // self.latents[-1]


@dataclass(frozen=True)
class Encoding:
    """Images (B, 3, H, W) as they were encoded, their posterior, and the latents sampled from it (B, C, h, w)."""

    images: Tensor
    posterior: Posterior
    latents: Tensor


@dataclass(frozen=True)
class Pair:
    """"This decoding is compared with that image": latents (B, C, h', w') to decode, images (B, 3, f h', f w') as target."""

    images: Tensor
    latents: Tensor
    weight: float = 1.0


class Regularizer(nn.Module):
    """The base of all methods; each overrides only the moments it needs.

    weight: factor of `penalty` in the loss. adaptive_weight: how the penalty is scaled beside it, by a ratio of gradient norms
    (VA-VAE); None adds it as it is.
    """

    weight: float = 1.0
    adaptive_weight: AdaptiveWeight | None = None

    def draw(self, streams: Streams, shapes: Shapes) -> Any:
        """This step's random choices, handed to the three moments below."""
        return None

    def before_encode(self, images: Tensor, draw: Any) -> Tensor:
        """Change the images that the encoder sees, and that are compared with the reconstruction."""
        return images

    def before_decode(self, pairs: list[Pair], draw: Any) -> list[Pair]:
        """Change, replace or add what is decoded and what it is compared with."""
        return pairs

    def penalty(self, encoding: Encoding, draw: Any) -> Tensor | None:
        """A scalar to add to the loss, times `weight`."""
        return None


class RegularizerConfig(LossConfig):
    """The recipe table of a regularizer. One that learns from a frozen network names it in `learned_from`."""

    def build(self, shapes: Shapes, weights_dir: Path | None) -> Regularizer:
        """For batches and latents of these shapes. weights_dir: where the files of frozen networks are looked for first."""
        raise NotImplementedError

    def problems(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        """(key, sentence) for each value that cannot work at these shapes; the recipe reports them before anything runs."""
        yield from ()

    def smallest_scale(self, shapes: Shapes) -> float:
        """The smallest factor by which a pair may be shrunk: what the discriminator and LPIPS must be able to take."""
        return 1.0
