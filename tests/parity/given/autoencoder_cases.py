"""The recorded runs of the autoencoder: sizes, weights of the terms, and random draws."""

from dataclasses import dataclass

IMAGES, STEPS, START, WARMUP = 2, 8, 3, 4
"""Images per process; number of steps; first step of the discriminator; number of warm-up updates."""
LR, WEIGHT_DECAY = 1e-3, 0.005
LPIPS_WEIGHT, GAN_WEIGHT = 0.5, 0.5
LATENT_CHANNELS, GROUPS = 4, 4
GAN_LAYERS, GAN_CHANNELS = 2, 8
ROWS_REMOVED = ((8, 0, 10, 12, 12, 8, 0, 10), (12, 8, 10, 0, 12, 0, 8, 8))
"""DSM's cut-off in each step, in the first process and in the second."""


@dataclass(frozen=True)
class Case:
    """channels: of each level. side: of the images, in pixels. kl, esm, delta: as in the released configuration.

    processes: number of processes, each with its own IMAGES of the batch. With several there is no discriminator, because
    SyncBatchNorm needs GPUs.
    """

    name: str
    channels: tuple[int, ...]
    side: int
    kl: float = 0.0
    esm: float = 0.0
    delta: float = 0.0
    dsm: bool = False
    processes: int = 1

    @property
    def batch(self) -> int:
        return self.processes * IMAGES

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        return self.batch, 3, self.side, self.side

    @property
    def adversary(self) -> bool:
        return self.processes == 1


CASES = (
    Case("sd-vae-kl", (8, 8, 16), 32, kl=1e-6),
    Case("sd-vae-esm-32-cells", (8, 16), 64, esm=0.01, delta=1.0),
    Case("sd-vae-esm-8-cells", (8, 8, 16), 32, esm=0.01, delta=0.6),
    Case("sd-vae-dsm", (8, 16), 32, dsm=True),
    Case("sd-vae-dsm-2-processes", (8, 16), 32, dsm=True, processes=2),
)
