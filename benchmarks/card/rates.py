"""Steps of training and calls of sampling at full size: images per second, share of the peak, memory, and what was predicted."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.card.findings import Row
from benchmarks.card.methods import autoencoder_task, diffusion_task, frozen_in, image_batch, latent_batch
from benchmarks.card.timing import forget_peak_memory, peak_memory, seconds_of, wait
from smtool.commands.train.cost_subject import autoencoder_subject, transformer_subject
from smtool.commands.train.run import assemble_training
from smtool.commands.train.teacher_precision import resolved
from smtool.commands.train.without_values import latent_batch as empty_latents
from smtool.cost.counting import Count, counting
from smtool.cost.cuda_autocast import cuda_autocast
from smtool.cost.estimate import Subject, estimate
from smtool.cost.gpus import GPU, GPUS
from smtool.cost.result import DataCost
from smtool.cost.storage import data_cost
from smtool.devices import gpu_algorithms, is_out_of_memory, to_device
from smtool.diffusion import Sampler
from smtool.features.perceptual import PerceptualDistance
from smtool.features.teachers import Teacher
from smtool.image_shape import ImageSize
from smtool.inference.generate import sample_latents
from smtool.networks.compiling import blocks_of, compile_each
from smtool.networks.shapes_only import shapes_only
from smtool.recipe import Recipe, TrainAE, TrainDiT, load
from smtool.training.distributed import Ranks
from smtool.training.loop import Batch, Training, optimize
from smtool.training.precision import autocast

ROOT = Path(__file__).parents[2]
CLASSES, LATENT, SIDE = 1000, (4, 32, 32), 256
_STEPS, _WARMUP, _PAIRS = 100, 4, 5
_CALLS = 8      # of the network, in one sampling run
_AE, _DIT = "recipes/paper/table2/f16d16-sd-vae.ae.toml", "recipes/paper/table4/sit-b2-repa.dit.toml"
_PLAYING = ("discriminator.start=0", "precision=bf16")
_SMALL_AE = (
    "data.image_size=32", "model.channels=[8,8,8]", "model.norm_groups=4", "model.downsample=4", "perceptual.net=squeeze",
    "discriminator.num_layers=1",
)  # fmt: skip
_SMALL_DIT = ("data.image_size=64", "model.size=nano", "alignment.teacher=squeezenet", "alignment.resize=bilinear")


@dataclass(frozen=True)
class Load:
    """What is measured. batches: tried one after another until one fits into memory; compiled: by torch.compile."""

    name: str
    kind: str      # "autoencoder", "transformer" or "samples"
    overrides: tuple[str, ...]
    batches: tuple[int, ...]
    aligned: bool = False
    compiled: bool = False

    def tables(self, batch: int, *, tiny: bool) -> TrainAE | TrainDiT:
        """The recipe's tables with this batch; without its alignment unless asked."""
        given = [f"data.batch={batch}", f"steps={_STEPS}", "precision=bf16", *self.overrides]
        if self.kind == "autoencoder":
            return load(str(ROOT / _AE), TrainAE, [*given, *_PLAYING, *(_SMALL_AE if tiny else ())]).tables
        tables = load(str(ROOT / _DIT), TrainDiT, [*given, *(_SMALL_DIT if tiny else ())]).tables
        return tables.model_copy(update={"compile": self.compiled, **({} if self.aligned else {"alignment": None})})


_XL = ("model.size=XL",)
_EAGER = (
    Load("SD-VAE f16d16 with LPIPS and PatchGAN, 256 px", "autoencoder", (), (48, 16)),
    Load("SiT-B/2", "transformer", (), (256, 64)),
    Load("SiT-B/2 with REPA", "transformer", (), (256, 64), aligned=True),
    Load("SiT-XL/2", "transformer", _XL, (128, 64)),
    Load("samples of SiT-XL/2, guidance 1.8", "samples", _XL, (128, 32)),
)
LOADS = (
    *_EAGER,
    *(replace(one, name=f"{one.name}, compiled", compiled=True) for one in _EAGER if one.kind != "autoencoder"),
)
"""First all without the compiler, which takes a minute for some."""


@dataclass(frozen=True)
class Card:
    """peak: FLOP/s of matrix products; gpu: its datasheet, None for a device that smtool.cost does not know."""

    device: str
    peak: float
    gpu: GPU | None
    tiny: bool


def measure(asked: Load, card: Card) -> Row:
    """A row; the largest batch that fits into memory."""
    for batch in (2,) if card.tiny else asked.batches:
        forget_peak_memory(card.device)
        tables = asked.tables(batch, tiny=card.tiny)
        try:
            found = _samples(asked, tables, batch, card) if asked.kind == "samples" else _steps(asked, tables, batch, card)
            return {"batch": batch, **found}
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        finally:
            if asked.compiled:
                torch.compiler.reset()
    raise MemoryError(f"out of memory with {batch} images")


def _steps(asked: Load, tables: Any, batch: int, card: Card) -> Row:
    """Whole steps: losses, gradients, clipping, update and average, from batches in pinned memory, as a run has them."""
    training, fed = _training(tables, card)
    if asked.compiled:
        task: Any = training.task
        compile_each(task.regions)
    with (
        gpu_algorithms(card.device, deterministic=False, same_shapes=True),
        closing(optimize(training, repeat(fed), first_step=0)) as steps,
    ):
        seconds = _seconds_of_steps(lambda: next(steps), card)
    cost = estimate(_subject(tables, card), card.gpu or GPUS["h200"], 1, _data)
    row = _row(batch, seconds, cost.flops / cost.steps, card)
    if card.gpu is not None:
        row |= {"predicted_ms": 1e3 * batch / cost.images_per_second, "predicted_gb": cost.memory.total / 1e9}
    return row


def _data(rate: float) -> DataCost:
    return data_cost(ImageSize(SIDE, SIDE), 3, images_per_second=rate, latents=None)


def _training(tables: Any, card: Card) -> tuple[Training, Batch]:
    """An assembled run and the batch of its steps."""
    if isinstance(tables, TrainAE):
        task: Any = autoencoder_task(tables, card.device)
        batch: Any = image_batch(side=tables.data.image_size.height, batch=tables.data.batch)
        averaged = "autoencoder"
    else:
        shape = _shape(card)
        task = diffusion_task(tables, card.device, shape, CLASSES)
        batch = latent_batch(
            shape=shape, side=8 * shape[1], batch=tables.data.batch, with_images=tables.alignment is not None
        )
        averaged = "transformer"
    for module in frozen_in(task):
        for part in module.modules():
            if isinstance(part, Teacher | PerceptualDistance):
                part.precision = resolved("auto", tables.precision, card.device, None)
    training = assemble_training(
        Recipe(tables, "", "card", Path("card.toml")), task, Ranks(0, 1, card.device), batch=tables.data.batch, averaged=averaged,
        optimizers=dict.fromkeys(task.players, tables.optimizer), frozen={},
    )  # fmt: skip
    return training, batch.pinned() if card.device.startswith("cuda") else batch


def _seconds_of_steps(step: Callable[[], object], card: Card) -> float:
    """Mean seconds of an even number of steps, since the players of some recipes take turns."""
    pairs = 1 if card.tiny else _PAIRS
    return seconds_of(lambda: (step(), step()), card.device, warmup=1 if card.tiny else _WARMUP // 2, calls=pairs) / 2


def _subject(tables: Any, card: Card) -> Subject:
    """What smtool.cost counts."""
    if isinstance(tables, TrainAE):
        return autoencoder_subject(tables, "card")
    shape = _shape(card)
    size = ImageSize(8 * shape[1], 8 * shape[2])
    return transformer_subject(tables, "card", shape, CLASSES, lambda count: empty_latents(tables, shape, size, 3, count))


def _samples(asked: Load, tables: TrainDiT, batch: int, card: Card) -> Row:
    """Calls of the network inside a sampling run with the recipe's guidance, with its noise and its float64 state."""
    shape = _shape(card)
    task = diffusion_task(tables, card.device, shape, CLASSES)
    network = task.network.requires_grad_(False).eval()
    if asked.compiled:
        compile_each(blocks_of(network))
    calls = 2 if card.tiny else _CALLS
    sampler = Sampler(kind=tables.sampler.kind, steps=calls, cfg_scale=tables.sampler.cfg_scale, precision="bf16")
    model: Any = SimpleNamespace(
        tables=tables, network=network, process=task.process, latent_shape=shape, num_classes=CLASSES, guide=None
    )
    labels = to_device(torch.arange(batch) % CLASSES, card.device)
    seconds = seconds_of(
        lambda: sample_latents(model, range(batch), seed=0, sampler=sampler, labels=labels, device=card.device), card.device,
        warmup=1, calls=1 if card.tiny else 2,
    )  # fmt: skip
    count = _call(tables, shape, 2 * batch)      # with and without the class
    row = _row(batch, seconds / calls, count.flops, card)
    row |= {"images_per_s_at_250_calls": batch / (250 * seconds / calls)}
    del row["images_per_s"]
    return row if card.gpu is None else {**row, "predicted_ms": 1e3 * card.gpu.seconds(count)}


def _call(tables: TrainDiT, shape: tuple[int, int, int], batch: int) -> Count:
    """One call of the network without gradients."""
    with shapes_only():
        network: Any = tables.model.build(shape, CLASSES)
        x, t, labels = torch.empty(batch, *shape), torch.empty(batch), torch.zeros(batch, dtype=torch.int64)
    with torch.no_grad(), cuda_autocast(), counting() as count, autocast("bf16", "cpu"):
        network(x, t, labels)
    return count


def _shape(card: Card) -> tuple[int, int, int]:
    return (4, 8, 8) if card.tiny else LATENT


def _row(batch: int, seconds: float, flops: float, card: Card) -> Row:
    wait(card.device)
    memory = peak_memory(card.device)
    row: Row = {
        "ms": 1e3 * seconds, "images_per_s": batch / seconds, "tflop": 1e-12 * flops, "share_of_peak": flops / seconds / card.peak
    }  # fmt: skip
    return row if memory is None else {**row, "gb": memory / 1e9}


def loads(*, compiled: str) -> Iterator[Load]:
    """compiled: "both", "on" or "off"."""
    for one in LOADS:
        if compiled == "both" or (compiled == "on") == one.compiled:
            yield one
