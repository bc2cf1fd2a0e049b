"""The base class of regularizers: modules with four hooks in an autoencoder's training step and one before it, which do nothing
by default."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from smtool.config import LossConfig
from smtool.networks.posterior import Posterior
from smtool.randomness import Streams
from smtool.training.terms import AdaptiveWeight


@dataclass(frozen=True)
class Shapes:
    """Shapes of a batch and of its latents: images (B, C, H, W), latents (B, C, h, w), downsample = H / h."""

    images: tuple[int, int, int, int]
    latents: tuple[int, int, int, int]

    @property
    def downsample(self) -> int:
        return self.images[-1] // self.latents[-1]


@dataclass(frozen=True)
class Encoding:
    """The encoded images (B, C, H, W), their posterior, and the latents sampled from it (B, C, h, w)."""

    images: Tensor
    posterior: Posterior
    latents: Tensor


@dataclass(frozen=True)
class Pair:
    """Latents (B, C, h', w') to decode, and the images (B, C, f h', f w') with which the decodings are compared.

    f: downsample factor; weight: factor of the pair in the reconstruction loss.
    """

    images: Tensor
    latents: Tensor
    weight: float = 1.0


class Regularizer(nn.Module):
    """Base class of all regularizers; each overrides only the hooks that it needs.

    weight: factor of `penalty` in the loss. adaptive_weight: additional factor by a ratio of gradient norms (VA-VAE); None:
    no additional factor.
    """

    weight: float = 1.0
    adaptive_weight: AdaptiveWeight | None = None

    def measure(self, images: Tensor) -> None:
        """Measure constants on some training images (N, 3, H, W), once, before the first step; buffers keep them."""

    def draw(self, streams: Streams, shapes: Shapes) -> Any:
        """Random choices of this step, passed as `draw` to the other three hooks."""
        return None

    def before_encode(self, images: Tensor, draw: Any) -> Tensor:
        """Change the images before they are encoded; the reconstruction is compared with the changed images."""
        return images

    def before_decode(self, pairs: list[Pair], draw: Any) -> list[Pair]:
        """Change, replace or add pairs of latents to decode and target images."""
        return pairs

    def penalty(self, encoding: Encoding, draw: Any) -> Tensor | None:
        """A scalar that is multiplied by `weight` and added to the loss; None for no penalty."""
        return None


class RegularizerConfig(LossConfig):
    """Recipe table of a regularizer. If it compares features of a frozen network, it names the network in `learned_from`.

    only_encoder: whether the term changes nothing but the encoder, so that it has no effect if the encoder is frozen.
    """

    only_encoder: ClassVar[bool] = False

    def build(self, shapes: Shapes, weights_dir: Path | None) -> Regularizer:
        """Build the module for these shapes. weights_dir: folder that is searched first for weights of frozen networks."""
        raise NotImplementedError

    def problems(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        """(key, sentence) for each value that is impossible at these shapes; they are reported when the recipe is loaded."""
        yield from ()

    def smallest_scale(self, shapes: Shapes) -> float:
        """The smallest factor by which a pair may be shrunk; used to check the input sizes of discriminator and LPIPS."""
        return 1.0
