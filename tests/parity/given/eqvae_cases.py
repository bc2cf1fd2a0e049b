"""The recorded steps of EQ-VAE: sizes, and the random draws of its training step."""

from dataclasses import dataclass

IMAGES, SIDE, LATENT_SIDE = 2, 64, 32
"""The released code uses scales s / 32, so latents have 32 cells."""
CHANNELS, LATENT_CHANNELS, GROUPS = (32, 32), 4, 32
LR, BETAS, KL_WEIGHT = 1e-3, (0.5, 0.9), 1e-6


@dataclass(frozen=True)
class Step:
    """What one step does. moment: "decode" downsamples latents and targets, "encode" the images, "none" neither.

    cells: rows and columns of the smaller latent. quarter_turns: number of rotations by 90 degrees.
    """

    moment: str
    cells: tuple[int, int] = (LATENT_SIDE, LATENT_SIDE)
    quarter_turns: int = 0


STEPS = {
    "eq-vae": (
        Step("decode", (20, 20), 1),
        Step("none"),
        Step("decode", (9, 9), 2),
        Step("encode", (12, 12)),
        Step("decode", (31, 31), 3),
    ),
    "eq-vae-anisotropic": (Step("decode", (20, 11), 1), Step("decode", (8, 31), 2)),
}
