"""A step of SiT-B/2 with REPA: the released loop, smtool with the teacher in every step, and smtool with cached features."""

import importlib
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import timm
import torch
from torch import Tensor, nn

from benchmarks import Row
from benchmarks.released.accelerator import LoggingAccelerator
from benchmarks.released.alternation import Alternation, Difference, differences
from benchmarks.released.given_draws import normal, numbers, streams, uniform
from smtool.data import LatentBatch
from smtool.diffusion import Flow, Repa, WeightedAlignment
from smtool.features.teachers import Teacher
from smtool.networks.posterior import LatentStats
from smtool.networks.sit import SiT
from smtool.randomness import initializing
from smtool.tasks.diffusion import PLAYER, DiffusionTask, Labels
from smtool.training.distributed import ALONE
from smtool.training.ema import MovingAverage
from smtool.training.loop import Plan, StepReport, Training, optimize
from smtool.training.optimizer import AdamW
from smtool.training.precision import MixedPrecision

LATENT, CLASSES, DROPOUT, SCALE = (4, 32, 32), 1000, 0.1, 0.18215
RATE, DECAY, WEIGHT, DEPTH = 1e-4, 0.9999, 0.5, 8
ONLINE_AIM, CACHED_AIM = 1.0, 1.3
_WORDS = {"diffusion": "loss", "alignment": "proj_loss"}


class RandomDino(nn.Module):
    """DINOv2 ViT-B/14 without published weights, by the interface of torch.hub's, which both trainers use. 224 px images."""

    embed_dim = 768

    def __init__(self) -> None:
        super().__init__()
        with initializing(0, "teacher"):
            self.network = timm.create_model("vit_base_patch14_dinov2", img_size=224, num_classes=0)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        return {"x_norm_patchtokens": self.network.forward_features(x)[:, 1:]}


def compare(checkout: Path, clock: Callable[[], float], *, batch: int, steps: int) -> tuple[list[Row], list[Difference]]:
    """Rows with the teacher in every step and with cached features, and the relative differences of all losses.

    steps: of which the first does not count.
    """
    dino = RandomDino().eval().requires_grad_(False)
    task, cached = _task(dino), _task(dino)
    initial = {name: value.detach().clone() for name, value in task.players[PLAYER].named_parameters()}
    cached.players[PLAYER].load_state_dict(task.players[PLAYER].state_dict())
    online, stored = (_reports(one, batch, steps + 1, features=one is cached) for one in (task, cached))
    of_stored: list[float] = []

    def step(number: int) -> dict[str, float]:
        return {_WORDS.get(name, name): float(value) for name, value in next(online).values.items()}

    def given(number: int) -> tuple[Tensor, Tensor, Tensor]:
        """The released batch; before it, the step with cached features, so that all three take turns."""
        _draws(batch, number)
        if number == len(of_stored):
            began = clock()
            next(stored)
            of_stored.append(clock() - began)
        found = _given(batch, number)
        return found.images, torch.cat((found.mean, (found.logvar / 2).exp()), 1), found.labels  # type: ignore[return-value]

    alternation = Alternation(given, step, steps, clock, lookahead=1)
    trainer = _imported(checkout)
    with tempfile.TemporaryDirectory() as folder:
        _replaced(trainer, alternation, initial, dino, steps * batch)
        trainer.main(trainer.parse_args(_arguments(folder, steps, batch)))
    name = f"SiT-B/2, batch {batch}, {torch.get_num_threads()} threads"
    first = alternation.row(f"teacher in every step: {name}", range(1, steps), ONLINE_AIM)
    alternation.ours = of_stored
    second = alternation.row(f"cached features: {name}", range(1, steps), CACHED_AIM)
    return [first, second], differences(alternation.losses, LoggingAccelerator.logged)


def _task(dino: RandomDino) -> DiffusionTask:
    with initializing(0, "benchmark"):
        network = SiT(size="B").build(LATENT, CLASSES)
        for parameter in network.parameters():      # of which many are 0 at first
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.02)
        table = Repa(teacher="given", hidden=2048)
        alignment = table.build(network.width, network.token_grid, teacher_dim=dino.embed_dim, teacher_grid=(16, 16))
    teacher = Teacher(
        dino, name="given", digest="", size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        features=lambda network, x: network.forward_features(x)["x_norm_patchtokens"].mT.unflatten(2, (16, 16)),
    )  # fmt: skip
    return DiffusionTask(
        network,
        Flow(path="linear", time="uniform").build(),
        LatentStats("scalar", torch.zeros(1), torch.tensor([1 / SCALE]), count=0, data=""),
        labels=Labels(dropout=DROPOUT),
        alignment=WeightedAlignment(alignment, WEIGHT, DEPTH),
        teacher=teacher,
    )


def _reports(task: DiffusionTask, batch: int, steps: int, *, features: bool) -> Iterator[StepReport]:
    module = task.players[PLAYER]
    table = AdamW(lr=RATE, weight_decay=0, warmup=0)
    plan = Plan(seed=0, batch=batch, accumulate=1, last_step=steps)
    training = Training(
        task, {PLAYER: table.build(module.named_parameters(), "cpu")}, {PLAYER: MovingAverage(module, DECAY, warmup=False)},
        MixedPrecision("fp32", "cpu"), ALONE, plan,
    )  # fmt: skip
    stored = normal((batch, 768, 16, 16), "features", 0) if features else None
    batches = (_given(batch, step, stored) for step in range(steps))
    with patch("smtool.training.loop.streams", streams):
        yield from optimize(training, batches, first_step=0)


def _given(batch: int, step: int, features: Tensor | None = None) -> LatentBatch:
    shape = (batch, *LATENT)
    mean, std = 5 * normal(shape, "mean", step), 0.1 + uniform(shape, "std", step)
    images = numbers.byte_images((batch, 3, 256, 256), "images", step)
    labels = numbers.integers(CLASSES, (batch,), "labels", step)
    return LatentBatch(mean, 2 * std.log(), labels, ("",) * batch, images, features)


def _draws(batch: int, step: int) -> None:
    """Generate the draws of a step, so that no trainer pays for them."""
    for name in ("posterior", "noise"):
        normal((batch, *LATENT), name, step)


def _imported(checkout: Path) -> Any:
    from recorder import stand_ins

    importlib.import_module("diffusers.models")      # before the stand-ins, for which it looks
    stand_ins.stand_in("wandb", "dataset", "dictdot", "utils")
    sys.modules["samplers"] = SimpleNamespace(euler_sampler=lambda model, latents, *args, **keys: latents)  # type: ignore[assignment]
    sys.path.insert(0, str(checkout))
    return importlib.import_module("train")


def _replaced(trainer: Any, alternation: Alternation, initial: dict[str, Tensor], dino: RandomDino, images: int) -> None:
    from recorder.repa import our_names

    make = trainer.SiT_models["SiT-B/2"]

    def transformer(**kwargs: Any) -> nn.Module:
        network = make(class_dropout_prob=DROPOUT, projector_dim=2048, **kwargs)
        with torch.no_grad():
            for name, parameter in our_names(network).items():
                parameter.copy_(initial[name])
        return network

    codec = SimpleNamespace(decode=lambda latents: SimpleNamespace(sample=torch.zeros(1, 3, 8, 8)))
    codec.to = lambda device: codec
    trainer.SiT_models = {"SiT-B/2": transformer}
    trainer.DataLoader = lambda *args, **kwargs: alternation
    trainer.CustomDataset = lambda folder: range(images)
    trainer.AutoencoderKL = SimpleNamespace(from_pretrained=lambda name: codec)
    trainer.load_encoders = lambda *args, **kwargs: ([dino], ["dinov2"], ["vit"])
    LoggingAccelerator.logged = []
    trainer.Accelerator = LoggingAccelerator
    like, flat = itertools.count(), itertools.count()

    def randn_like(tensor: Tensor, **keys: Any) -> Tensor:
        number = next(like) - 1      # one posterior is sampled before the first step
        return normal(tuple(tensor.shape), "noise" if number % 2 else "posterior", max(number, 0) // 2)

    def rand(size: Any, **keys: Any) -> Tensor:
        number, shape = next(flat), (size,) if isinstance(size, int) else tuple(size)
        return uniform((shape[0],), "label dropout" if number % 2 else "time", number // 2).reshape(shape)

    torch.randn_like, torch.rand = randn_like, rand  # type: ignore[assignment]


def _arguments(folder: str, steps: int, batch: int) -> list[str]:
    values = {
        "output-dir": folder, "exp-name": "benchmark", "model": "SiT-B/2", "num-classes": CLASSES, "encoder-depth": DEPTH,
        "batch-size": batch, "mixed-precision": "no", "max-train-steps": steps, "learning-rate": RATE, "path-type": "linear",
        "weighting": "uniform", "proj-coeff": WEIGHT, "num-workers": 0, "enc-type": "dinov2-vit-b",
    }  # fmt: skip
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]
