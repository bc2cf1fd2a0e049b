"""An autoencoder's step with LPIPS and GAN: the paper's released trainer, and smtool. Both start from the same random weights."""

import importlib
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import lpips
import torch
import yaml
from torch import Tensor, nn

from benchmarks import Row
from benchmarks.released.accelerator import LoggingAccelerator
from benchmarks.released.alternation import Alternation, Difference, differences
from benchmarks.released.given_draws import normal, numbers, streams
from smtool.checkpoints.foreign.released import RELEASED
from smtool.data import ImageBatch
from smtool.devices import image_layout
from smtool.features.frozen import Frozen
from smtool.features.perceptual import PerceptualDistance
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing
from smtool.regularizers import KL, Shapes
from smtool.tasks.adversary import Adversary
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction
from smtool.training.distributed import ALONE
from smtool.training.loop import Plan, StepReport, Training, optimize
from smtool.training.optimizer import AdamW
from smtool.training.precision import MixedPrecision

KL_WEIGHT, RATE, WARMUP = 1e-6, 5e-5, 2000
ALONE_AIM, ADVERSARIAL_AIM = 1.1, 1.4
_WORDS = {"l1": "recon_loss", "lpips": "lpips_loss", "kl": "kl_loss", "adversarial_factor": "adp_weight"}


class RandomPerceptual(PerceptualDistance):
    """LPIPS on a VGG16 trunk without published weights, which both trainers use."""

    def __init__(self, network: nn.Module) -> None:
        Frozen.__init__(self, network)
        self.name, self.smallest_input = "lpips_random_vgg", 16


def compare(
    checkout: Path, clock: Callable[[], float], *, side: int, batch: int, config: str, before: int, playing: int
) -> tuple[list[Row], list[Difference]]:
    """Rows of the steps before the discriminator and with it, and the relative differences of all losses.

    config: of the checkout, such as ldm_f16d16. before, playing: numbers of steps, of which the first two do not count.
    """
    model = yaml.safe_load((checkout / f"configs/{config}.yaml").read_text())
    widths, channels = model["vae"]["vae_channels_per_block"], model["vae"]["latent_channels"]
    shape = (batch, 3, side, side)
    task = _task(tuple(widths), channels, shape, start=before)
    initial = {name: value.detach().clone() for name, value in task.autoencoder.state_dict().items()}
    critic = {name: value.detach().clone() for name, value in task.discriminator.state_dict().items()}  # type: ignore[union-attr]
    steps = before + playing
    factor = 2 ** (len(widths) - 1)
    latent = (batch, channels, side // factor, side // factor)

    def images(step: int) -> dict[str, Tensor]:
        normal(latent, "posterior", step)      # so that neither trainer pays for it
        return {"images": numbers.signed_images(shape, "images", step).float()}

    reports = _reports(task, lambda step: images(step)["images"], steps + 1, batch)
    alternation = Alternation(images, lambda step: _losses(next(reports)), steps, clock)
    trainer = _imported(checkout)
    with tempfile.TemporaryDirectory() as folder:
        logged = _replaced(trainer, alternation, initial, critic, task.perceptual[0].network, steps * batch)  # type: ignore[index]
        model["vae"]["img_size"] = side
        sys.argv = ["trainer", *_arguments(checkout, Path(folder), model, start=before, steps=steps, batch=batch)]
        trainer.main()
    name = f"{config}, {side} px, batch {batch}, {torch.get_num_threads()} threads"
    rows = [
        alternation.row(f"before the discriminator: {name}", range(2, before), ALONE_AIM),
        alternation.row(f"while it plays: {name}", range(before + 2, steps), ADVERSARIAL_AIM),
    ]
    return rows, differences(alternation.losses, logged)


def _task(widths: tuple[int, ...], channels: int, shape: tuple[int, int, int, int], *, start: int) -> AutoencoderTask:
    config = SDVAE(
        downsample=2 ** (len(widths) - 1), channels=widths, latent_channels=channels, downsample_pad="symmetric"
    )
    adversary = Adversary(start=start, weight=0.5)
    with initializing(0, "benchmark"):
        autoencoder, discriminator = config.build(), adversary.build()
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    latents = (shape[0], channels, shape[2] // config.downsample, shape[3] // config.downsample)
    layout = image_layout("cpu", shape[2:])
    return AutoencoderTask(
        autoencoder.to(memory_format=layout),
        {"kl": KL(weight=KL_WEIGHT).build(Shapes(shape, latents), None)},
        reconstruction=Reconstruction(loss="l1"),
        perceptual=(RandomPerceptual(network), 0.5),
        adversary=adversary,
        discriminator=discriminator.to(memory_format=layout),
        flip=False,
    )


def _reports(task: AutoencoderTask, images: Callable[[int], Tensor], steps: int, batch: int) -> Iterator[StepReport]:
    table = AdamW(lr=RATE, weight_decay=0.005, warmup=WARMUP, warmup_from="zero")
    optimizers = {player: table.build(module.named_parameters(), "cpu") for player, module in task.players.items()}
    plan = Plan(seed=0, batch=batch, accumulate=1, last_step=steps)
    training = Training(task, optimizers, {}, MixedPrecision("fp32", "cpu"), ALONE, plan)
    batches = (ImageBatch(images(step), None, ("",) * batch) for step in range(steps))
    with patch("smtool.training.loop.streams", streams):
        yield from optimize(training, batches, first_step=0)


def _losses(report: StepReport) -> dict[str, float]:
    """By the released names. Both logs have the discriminator's term as disc_loss."""
    values = {_WORDS.get(name, name): float(value) for name, value in report.values.items()}
    for name in ("adversarial", "discriminator"):
        if name in values:
            values["disc_loss"] = values.pop(name)
    return values


def _imported(checkout: Path) -> Any:
    from recorder import stand_ins

    importlib.import_module("diffusers.optimization")      # before the stand-in for transformers, for which diffusers looks
    stand_ins.stand_in("utils", "dataset", "transformers", "eval_utils.utils", "eval_utils.fid_score")
    sys.path.insert(0, str(checkout))
    return importlib.import_module("stage1_vae_trainer")


def _replaced(
    trainer: Any, alternation: Alternation, initial: dict[str, Tensor], critic: dict[str, Tensor], perceptual: nn.Module,
    images: int,
) -> list[dict[str, float]]:
    """Replace data, noise and initial weights. Returns the list that the trainer's losses will fill, a step each."""
    make_autoencoder, make_discriminator = trainer.VAE, trainer.PatchGAN

    def autoencoder(config: Any) -> nn.Module:
        network = make_autoencoder(config)
        names = RELEASED.our_names(name for name, _ in network.named_parameters())
        network.load_state_dict({name: initial[names[name]] for name, _ in network.named_parameters()}, strict=False)
        return network

    def discriminator(**kwargs: Any) -> nn.Module:
        network = make_discriminator(**kwargs)
        network.load_state_dict({name: critic[name.replace("model.", "layers.", 1)] for name in network.state_dict()})
        return network

    steps = itertools.count()
    trainer.VAE, trainer.PatchGAN, trainer.init_weights = autoencoder, discriminator, lambda module: None
    trainer.lpips = SimpleNamespace(LPIPS=lambda net: perceptual)
    trainer.get_dataset = lambda **kwargs: (range(images), None)
    trainer.DataLoader = lambda *args, **kwargs: alternation
    LoggingAccelerator.logged = []
    trainer.Accelerator = LoggingAccelerator
    torch.randn_like = lambda like, **keys: normal(tuple(like.shape), "posterior", next(steps))  # type: ignore[assignment]
    return LoggingAccelerator.logged


def _arguments(checkout: Path, folder: Path, model: dict[str, Any], *, start: int, steps: int, batch: int) -> list[str]:
    training = yaml.safe_load((checkout / "configs/train_vae_celeba256.yaml").read_text())
    training["training_args"] |= {
        "disc_start": start, "total_training_iterations": steps, "per_gpu_batch_size": batch, "kl_weight": KL_WEIGHT,
        "esm_weight": 0.0, "num_workers": 0,
    }  # fmt: skip
    (folder / "training.yaml").write_text(yaml.safe_dump(training))
    (folder / "model.yaml").write_text(yaml.safe_dump(model))
    values = {
        "experiment_name": "benchmark", "working_directory": folder, "eval_dir": folder, "wandb_run_name": "benchmark",
        "training_config": folder / "training.yaml", "model_config": folder / "model.yaml", "dataset": "celeba256",
        "path_to_dataset": folder,
    }  # fmt: skip
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]
