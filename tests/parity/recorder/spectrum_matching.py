"""Records Spectrum Matching's autoencoder trainer by running its main(): python -m recorder.spectrum_matching CASE CHECKOUT OUT.

Replaced are the data set and its loader (given images in order), the noise of the posterior (torch.randn_like, one call per
step), DSM's random.choice, initial weights, and the weights of LPIPS' VGG trunk, which would need a download. The configuration
is that of the checkout's files, with the keys of `_overrides` changed.
"""

import importlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers.optimization  # noqa: F401  must precede the stand-in for transformers, which diffusers looks for
import torch
import yaml
from accelerate.state import PartialState
from given import autoencoder_cases as cases
from given import float64, numbers, recording
from given.perceptual import random_lpips
from given.summary import summary
from torch import Tensor, nn

from recorder import stand_ins, watch
from recorder.checkouts import DSM_TRAINER, ESM_TRAINER
from smtool.checkpoints.foreign.released import RELEASED

RANK = int(os.environ.get("RANK", "0"))


def main(name: str, checkout: Path, out: Path) -> None:
    case = next(case for case in cases.CASES if case.name == name)
    trainer = _imported(checkout, "vae_trainer" if case.dsm else "stage1_vae_trainer")
    with float64.everywhere(), tempfile.TemporaryDirectory() as folder:
        players = _replaced(trainer, case)
        sys.argv = ["trainer", *_arguments(checkout, Path(folder), case)]
        trainer.main()
        assert PartialState().num_processes == case.processes
        critic = players.get("discriminator", nn.Identity())
        buffers = _our_discriminator_names(critic.named_buffers())
        state = summary({key: value for key, value in buffers.items() if value.is_floating_point()})
    if RANK:
        return
    source = (DSM_TRAINER if case.dsm else ESM_TRAINER).source
    command = f"make parity REFERENCE=path: python -m recorder.spectrum_matching {name}"
    recording.write(out, {**source, "command": command, "steps": watch.steps, "discriminator_buffers": state})


def _imported(checkout: Path, module: str) -> Any:
    stand_ins.stand_in("utils", "dataset", "transformers", "eval_utils.utils", "eval_utils.fid_score")
    sys.path.insert(0, str(checkout))
    return importlib.import_module(module)


def _replaced(trainer: Any, case: cases.Case) -> dict[str, nn.Module]:
    """Replace what the trainer draws or loads by given values. Returns a dict that will hold the networks it builds."""
    players: dict[str, nn.Module] = {}
    make_autoencoder, make_discriminator = trainer.VAE, trainer.PatchGAN

    def autoencoder(config: Any) -> nn.Module:
        players["autoencoder"] = network = make_autoencoder(config)
        names = RELEASED.our_names(name for name, _ in network.named_parameters())
        _fill("autoencoder", {names[name]: value for name, value in network.named_parameters()})
        return network

    def discriminator(**kwargs: Any) -> nn.Module:
        players["discriminator"] = network = make_discriminator(**kwargs)
        _fill("discriminator", _our_discriminator_names(network.named_parameters()))
        return network

    steps, choices = itertools.count(), iter(cases.ROWS_REMOVED[RANK])
    own = slice(RANK * cases.IMAGES, (RANK + 1) * cases.IMAGES)

    def batch(step: int) -> dict[str, Tensor]:
        return {"images": numbers.signed_images(case.image_shape, "images", step)[own]}

    def randn_like(like: Tensor, **keys: Any) -> Tensor:
        return numbers.normal((case.batch, *like.shape[1:]), "posterior", next(steps))[own]

    trainer.VAE, trainer.PatchGAN, trainer.init_weights = autoencoder, discriminator, lambda module: None
    trainer.lpips = SimpleNamespace(LPIPS=lambda net: random_lpips())
    trainer.get_dataset = lambda **kwargs: (range(case.batch * cases.STEPS), None)
    trainer.DataLoader = lambda *args, **kwargs: stand_ins.Batches(batch, cases.STEPS)
    trainer.Accelerator = watch.WatchedAccelerator
    trainer.random = SimpleNamespace(choice=lambda options: next(choices))
    torch.optim.AdamW = watch.WatchedAdamW  # type: ignore[misc]
    torch.randn_like = randn_like  # type: ignore[assignment]
    return players


def _our_discriminator_names(tensors: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name.replace("model.", "layers.", 1): value for name, value in tensors}


def _fill(player: str, parameters: dict[str, nn.Parameter]) -> None:
    numbers.fill(parameters, player)
    watch.watch(player, parameters)


def _arguments(checkout: Path, folder: Path, case: cases.Case) -> list[str]:
    training = yaml.safe_load((checkout / "configs/train_vae_celeba256.yaml").read_text())
    model = yaml.safe_load((checkout / "configs/ldm_f8d4.yaml").read_text())
    training["training_args"] |= _overrides(case)
    model["vae"] |= {
        "img_size": case.side,
        "vae_channels_per_block": list(case.channels),
        "latent_channels": cases.LATENT_CHANNELS,
        "groupnorm_groups": cases.GROUPS,
    }
    (folder / "training.yaml").write_text(yaml.safe_dump(training))
    (folder / "model.yaml").write_text(yaml.safe_dump(model))
    values = {
        "experiment_name": "parity",
        "working_directory": folder,
        "eval_dir": folder,
        "wandb_run_name": "parity",
        "training_config": folder / "training.yaml",
        "model_config": folder / "model.yaml",
        "dataset": "celeba256",
        "path_to_dataset": folder,
    }
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]


def _overrides(case: cases.Case) -> dict[str, Any]:
    return {
        "use_patchgan": case.adversary,
        "disc_start_dim": cases.GAN_CHANNELS,
        "disc_depth": cases.GAN_LAYERS,
        "disc_learning_rate": cases.LR,
        "disc_lr_warmup_steps": cases.WARMUP,
        "disc_start": cases.START,
        "learning_rate": cases.LR,
        "lr_warmup_steps": cases.WARMUP,
        "total_training_iterations": cases.STEPS,
        "per_gpu_batch_size": cases.IMAGES,
        "kl_weight": case.kl,
        "esm_weight": case.esm,
        "delta": case.delta,
        "num_workers": 0,
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
