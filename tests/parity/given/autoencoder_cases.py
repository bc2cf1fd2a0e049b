"""The autoencoder's recorded runs: sizes, weights of the terms, and draws."""

from dataclasses import dataclass

IMAGES, STEPS, START, WARMUP = 2, 8, 3, 4
"""Images a batch; steps; the step at which the discriminator joins in; updates of the warm-up."""
LR, WEIGHT_DECAY = 1e-3, 0.005
LPIPS_WEIGHT, GAN_WEIGHT = 0.5, 0.5
LATENT_CHANNELS, GROUPS = 4, 4
GAN_LAYERS, GAN_CHANNELS = 2, 8
ROWS_REMOVED = (8, 0, 10, 12, 12, 8, 0, 10)
"""DSM's draw of each step."""


@dataclass(frozen=True)
class Case:
    """channels: of each level; side: of the images, in pixels; kl, esm, delta: as in the released configuration."""

    name: str
    channels: tuple[int, ...]
    side: int
    kl: float = 0.0
    esm: float = 0.0
    delta: float = 0.0
    dsm: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        return IMAGES, 3, self.side, self.side


CASES = (
    Case("sd-vae-kl", (8, 8, 16), 32, kl=1e-6),
    Case("sd-vae-esm-32-cells", (8, 16), 64, esm=0.01, delta=1.0),
    Case("sd-vae-esm-8-cells", (8, 8, 16), 32, esm=0.01, delta=0.6),
    Case("sd-vae-dsm", (8, 16), 32, dsm=True),
)
