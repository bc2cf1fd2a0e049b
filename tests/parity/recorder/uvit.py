"""Records U-ViT's latent trainer by running its train(): python -m recorder.uvit CASE CHECKOUT OUT.

Replaced are the data set and its loader (given moments in order), random numbers (torch.randn_like in the order of the calls,
np.random.choice for the noise level) and initial weights. Of the frozen autoencoder only the sampling from moments runs. The run
is stopped before the trainer saves its last checkpoint. The configuration is configs/imagenet256_uvit_large.py at a small size.
"""

import contextlib
import importlib
import itertools
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import torch
from given import float64, numbers, recording
from given import uvit_cases as cases
from given.summary import change, copied
from torch import Tensor, nn

from recorder import stand_ins, watch
from recorder.checkouts import UVIT


class Finished(Exception):
    """Raised instead of saving the last checkpoint."""


def main(name: str, checkout: Path, out: Path) -> None:
    case = next(case for case in cases.CASES if case.name == name)
    stand_ins.stand_in("wandb", "datasets", "tools.fid_score")
    sys.path.insert(0, str(checkout))
    trainer = importlib.import_module("train_ldm_discrete")
    configuration = importlib.import_module("configs.imagenet256_uvit_large").get_config()
    with float64.everywhere(), tempfile.TemporaryDirectory() as folder:
        built = _replaced(trainer, case)
        with contextlib.suppress(Finished):
            trainer.train(_configured(configuration, case, folder))
        average = change(built[0], dict(built[2].named_parameters()))
    command = f"make parity REFERENCE=path: python -m recorder.uvit {name}"
    recording.write(out, {**UVIT.source, "command": command, "steps": watch.steps, "average": average})


def _replaced(trainer: Any, case: cases.Case) -> list[Any]:
    """Replace what the trainer draws or loads. Returns a list that will hold the initial weights, the network and its average."""
    built: list[Any] = []
    make = trainer.utils.get_nnet

    def network(**kwargs: Any) -> nn.Module:
        made = make(**kwargs)
        if not built:
            parameters = dict(made.named_parameters())
            numbers.fill(parameters, "transformer")
            watch.watch("transformer", parameters)
            built.append(copied(parameters))
        built.append(made)
        return made

    def save(state: Any, path: str) -> None:
        raise Finished

    frozen = SimpleNamespace(scale_factor=cases.SCALE, to=lambda device: None)
    frozen.sample = lambda moments: trainer.libs.autoencoder.FrozenAutoencoderKL.sample(frozen, moments)
    trainer.libs.autoencoder.get_model = lambda path: frozen
    trainer.utils.get_nnet, trainer.utils.TrainState.save = network, save
    trainer.wandb.log = lambda values, step: watch.steps[-1].update(logged={"loss": float(values["loss"])})
    trainer.wandb.init = lambda **kwargs: None
    trainer.get_dataset = lambda **kwargs: SimpleNamespace(fid_stat=__file__, get_split=lambda **kwargs: None)
    trainer.DataLoader = lambda *args, **kwargs: stand_ins.Batches(lambda step: _batch(case, step), cases.STEPS)
    accelerate.Accelerator = watch.WatchedAccelerator
    torch.optim.AdamW = watch.WatchedAdamW  # type: ignore[misc]
    _give_draws(trainer)
    return built


def _batch(case: cases.Case, step: int) -> Any:
    moments = torch.cat(cases.mean_and_logvar(step), 1)
    return [moments, cases.labels(case, step)] if case.classes else moments


def _give_draws(trainer: Any) -> None:
    """Per step: noise of the posterior, noise level, noise."""
    like, level = itertools.count(), itertools.count()

    def randn_like(tensor: Tensor) -> Tensor:
        number = next(like)
        return numbers.normal(tensor.shape, "noise" if number % 2 else "posterior", number // 2)

    def choice(levels: list[int], shape: tuple[int, ...]) -> Any:
        uniform = numbers.uniform(shape, "time", next(level))
        return trainer.np.asarray(levels)[(uniform * len(levels)).long().numpy()]

    torch.randn_like = randn_like  # type: ignore[assignment]
    trainer.np.random.choice = choice


def _configured(configuration: Any, case: cases.Case, folder: str) -> Any:
    configuration.update(workdir=folder, ckpt_root=folder, sample_dir=folder, hparams="parity", ema_rate=cases.EMA_DECAY)
    configuration.train.update(
        n_steps=cases.STEPS, batch_size=cases.IMAGES, mode="cond" if case.classes else "uncond", log_interval=1
    )
    configuration.optimizer.update(lr=cases.LR, weight_decay=cases.WEIGHT_DECAY, betas=cases.BETAS)
    configuration.lr_scheduler.update(warmup_steps=cases.WARMUP)
    configuration.nnet.update(
        img_size=cases.SIDE,
        patch_size=cases.PATCH,
        in_chans=cases.CHANNELS,
        embed_dim=cases.WIDTH,
        depth=cases.DEPTH,
        num_heads=cases.HEADS,
        num_classes=case.classes + 1 if case.classes else -1,
        use_checkpoint=False,
    )
    return configuration


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
