"""The recorded steps of EQ-VAE in smtool: `AutoencoderTask` with its regularizer in the training loop."""

from typing import Any

from given import eqvae_cases as cases
from given import numbers

from replay.loop import run
from smtool.data.batches import ImageBatch
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import Streams
from smtool.regularizers import EQVAE, KL, Shapes
from smtool.regularizers.eq_vae import Transform
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction
from smtool.training.optimizer import AdamW

PLAYER, DOWNSAMPLE = "autoencoder", cases.SIDE // cases.LATENT_SIDE
SHAPES = Shapes(
    (cases.IMAGES, 3, cases.SIDE, cases.SIDE), (cases.IMAGES, cases.LATENT_CHANNELS, cases.LATENT_SIDE, cases.LATENT_SIDE)
)


def replayed(name: str, *, error: float = 0.0) -> dict[str, Any]:
    """The steps of the case, computed by smtool. error: relative error of the L1 weight, which the comparison must detect."""
    steps = cases.STEPS[name]
    autoencoder = SDVAE(
        downsample=DOWNSAMPLE, channels=cases.CHANNELS, latent_channels=cases.LATENT_CHANNELS, norm_groups=cases.GROUPS
    ).build()
    numbers.fill(dict(autoencoder.named_parameters()), PLAYER)
    regularizer = EQVAE(anisotropic=name == "eq-vae-anisotropic").build(SHAPES, None)
    regularizer.draw = lambda streams, shapes: _given(steps[streams.step], streams, shapes)
    task = AutoencoderTask(
        autoencoder,
        {"kl": KL(weight=cases.KL_WEIGHT).build(SHAPES, None), "eq_vae": regularizer},
        reconstruction=Reconstruction(loss="l1", weight=1 + error),
        perceptual=None,
        adversary=None,
        discriminator=None,
        flip=False,
    )
    table = AdamW(lr=cases.LR, betas=cases.BETAS, weight_decay=0, warmup=0, clip="off")
    players = {PLAYER: autoencoder}
    reports = list(run(task, {PLAYER: table}, players, _batch, steps=len(steps), batch=cases.IMAGES))
    for report in reports:
        report["logged"] = report.pop("values")
    return {"steps": reports}


def _given(step: cases.Step, streams: Streams, shapes: Shapes) -> Transform:
    """Replaces the random draw of the step."""
    return Transform(step.moment, step.cells, step.quarter_turns, shapes.downsample)


def _batch(step: int) -> ImageBatch:
    images = numbers.signed_images((cases.IMAGES, 3, cases.SIDE, cases.SIDE), "images", step)
    return ImageBatch(images, None, tuple(map(str, range(cases.IMAGES))))
