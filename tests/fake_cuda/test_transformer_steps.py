"""Training steps of every transformer, process, alignment and kind of statistics on the fake GPU: no mixed devices, no waits."""

from itertools import count
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from fake_cuda.allowed import DOUBLES, added
from smtool import devices
from smtool.commands.train.run import assemble_training
from smtool.data.batches import LatentBatch
from smtool.diffusion import DDPM, VPSDE, AnyAlignment, Flow, WeightedAlignment
from smtool.features.teachers import load_teacher
from smtool.networks import AnyBackbone
from smtool.networks.posterior import LatentStats
from smtool.networks.recompute import recompute_activations
from smtool.randomness import streams
from smtool.recipe import Recipe, TrainDiT
from smtool.spectrum.radial_bands import band_count
from smtool.spectrum.recolour import Recolouring
from smtool.tasks.diffusion import PLAYER, DiffusionTask
from smtool.training.distributed import Ranks
from smtool.training.loop import optimize

pytestmark = pytest.mark.fake_cuda

BATCH, SHAPE, CLASSES = 2, (4, 8, 8), 3
TINY = {"size": "custom", "depth": 2, "width": 8, "heads": 2, "patch": 2}
MODELS: dict[str, dict[str, Any]] = {
    "sit": {},
    "uvit": {},
    "lightning-dit": {"qk_norm": True},
    "dit-dh": {"head_depth": 1, "head_width": 8, "head_heads": 2},
}
PROCESSES: list[dict[str, Any]] = [
    {"kind": "flow", "path": "cosine", "prediction": "eps", "time": "logit-normal", "shift": 2.0},
    {"kind": "flow", "prediction": "x"},
    {"kind": "ddpm"},
    {"kind": "vp-sde"},
    {"kind": "vp-sde", "prediction": "x0"},
]
ALIGNMENTS: dict[str, dict[str, Any]] = {
    "repa": {"hidden": 8},
    "irepa": {},
    "repa-dog": {"sigma1": 0.5, "sigma2": 2.0},
}
LOSSES: dict[str, dict[str, Any]] = {
    "cosine": {"loss": {"cosine": 1.0}},
    "weights of channels": {"loss": {"weights": [1.0, 2.0, 0.5, 0.5]}},
    "prefixes": {"channel_prefix": {"lengths": [2, 4]}},
    "recomputed": {"memory": "checkpoint"},
}


def _tables(**tables: Any) -> TrainDiT:
    model = {"kind": "sit", **TINY, **tables.pop("model", {})}
    return TrainDiT.model_validate({
        "steps": 4, "data": {"batch": BATCH}, "latents": {"autoencoder": "none"}, "optimizer": {"warmup": 0}, "labels": {},
        "model": model, **tables,
    })


def _stats(kind: str = "channel") -> LatentStats:
    shape = {"channel": 4, "scalar": 1, "patch": 16, "element": SHAPE}[kind]
    return LatentStats(kind, torch.zeros(shape), torch.ones(shape), 10, "data")


def _batch() -> LatentBatch:
    latents = torch.rand(BATCH, *SHAPE)
    images = torch.zeros(BATCH, 3, 32, 32, dtype=torch.uint8)
    return LatentBatch(latents, latents - 3, torch.tensor([0, 2]), ("a", "b"), images)


def _task(tables: TrainDiT, stats: LatentStats | None = None, weights_dir: Any = None) -> DiffusionTask:
    network = tables.model.build(SHAPE, CLASSES).to("cuda")
    if tables.memory == "checkpoint":
        recompute_activations(network)
    aligned, teacher = None, None
    if (table := tables.alignment) is not None:
        teacher = load_teacher(table.teacher, token_grid=network.token_grid, weights_dir=weights_dir)
        module = table.build(network.width, network.token_grid, teacher_dim=teacher.dim, teacher_grid=teacher.grid).to("cuda")
        aligned, teacher = WeightedAlignment(module, table.weight, table.depth), teacher.to("cuda")
        teacher.precision = "bf16"      # the rule on a GPU
    return DiffusionTask(
        network, tables.process.build(), stats or _stats(), labels=tables.labels, alignment=aligned, teacher=teacher,
        channel_weights=None if isinstance(tables.loss.weights, str) else tables.loss.weights,
        prefixes=tables.channel_prefix, cosine=tables.loss.cosine,
    )


def _steps(card, task: DiffusionTask, *, loop: str = "step of a transformer") -> None:
    card.waits.clear()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = task.loss(PLAYER, _batch(), streams(0, 1, PLAYER, batch=BATCH, device="cuda"), 1).total
    loss.backward()
    assert not added(card.waits, loop, first=True)
    assert set(card.doubles) <= DOUBLES
    assert all(p.grad is not None for p in task.network.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", MODELS)
def test_every_transformer_trains_without_waiting(card, kind):
    _steps(card, _task(_tables(model={"kind": kind, **MODELS[kind]})))


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_trains_without_waiting(card, process):
    _steps(card, _task(_tables(process=process)))


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_every_alignment_trains_without_waiting(card, squeezenet_weights, kind):
    alignment = {"kind": kind, "teacher": "squeezenet", "depth": 1, "resize": "bilinear", **ALIGNMENTS[kind]}
    _steps(card, _task(_tables(alignment=alignment), weights_dir=squeezenet_weights))


@pytest.mark.parametrize("name", LOSSES)
def test_every_other_loss_trains_without_waiting(card, name):
    _steps(card, _task(_tables(**LOSSES[name])))


@pytest.mark.parametrize("kind", ["scalar", "patch", "element", "spectral"])
def test_every_kind_of_statistics_normalizes_without_waiting(card, kind):
    if kind == "spectral":
        filtered = Recolouring("white", SHAPE[1:], torch.ones(4, len(band_count(SHAPE[1:])), dtype=torch.float64))
        stats = LatentStats("spectral", torch.zeros(4), torch.ones(4), 10, "data", recolouring=filtered)
    else:
        stats = _stats(kind)
    latents = torch.rand(BATCH, *SHAPE, device="cuda")
    stats.normalize(latents)
    card.waits.clear()
    assert stats.denormalize(stats.normalize(latents)).device.type == "cuda"
    assert not added(card.waits, "step of a transformer")


@pytest.mark.parametrize("tables", [
    {"model": {"kind": "lightning-dit"}, "process": {"kind": "flow", "time": "logit-normal"}},
    {"process": {"kind": "ddpm"}, "alignment": {"kind": "repa-dog", "teacher": "squeezenet", "depth": 1, "resize": "bilinear",
                                                "sigma1": 0.5, "sigma2": 2.0}},
    {"process": {"kind": "vp-sde"}},
])
def test_devices_without_float64_get_none(card, squeezenet_weights, tables, monkeypatch):
    """All that `DOUBLES` names. On such a device a step may wait for numbers that the host computes."""
    monkeypatch.setattr(devices, "has_float64", lambda device: torch.device(device).type == "cpu")
    law = Recolouring("white", SHAPE[1:], torch.ones(4, len(band_count(SHAPE[1:])), dtype=torch.float64))
    stats = LatentStats("spectral", torch.zeros(4), torch.ones(4), 10, "data", recolouring=law)
    _steps(card, _task(_tables(**tables), stats, squeezenet_weights), loop="step without float64")
    assert not card.doubles


def test_whole_steps_do_not_wait(card):
    """Loss, clipping, optimizer and the average of the weights."""
    tables = _tables(precision="bf16", ema={"decay": 0.9})
    training = assemble_training(
        Recipe(tables, "", "none", Path("none.toml")), _task(tables), Ranks(0, 1, "cuda"), batch=BATCH, averaged=PLAYER,
        optimizers={PLAYER: tables.optimizer}, frozen={},
    )
    for report in optimize(training, (_batch() for _ in count()), first_step=0):
        if report.step > 1:      # the first step makes the state of the optimizer
            assert not added(card.waits, "step of a transformer")
        card.waits.clear()


def test_every_transformer_process_and_alignment_is_here():
    backbones, alignments = (get_args(get_args(union)[0]) for union in (AnyBackbone, AnyAlignment))
    assert {member.model_fields["kind"].default for member in backbones} == set(MODELS)
    assert {member.model_fields["kind"].default for member in alignments} == set(ALIGNMENTS)
    assert {member.model_fields["kind"].default for member in (Flow, DDPM, VPSDE)} == {one["kind"] for one in PROCESSES}
