"""Loss and gradients of a method on a device, compared with those on the CPU in float32."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.card.findings import Row
from benchmarks.card.methods import Method, frozen_in
from smtool.devices import exact_convolutions
from smtool.features.perceptual import PerceptualDistance
from smtool.features.teachers import Teacher
from smtool.randomness import streams
from smtool.training.loop import Batch, Task
from smtool.training.precision import autocast


@dataclass(frozen=True)
class Mode:
    """How the device computes. loss: largest accepted relative difference; gradient: of a parameter's gradient, in the norm,
    relative to the norm of that gradient or to `floor` times the norm of all of them, whichever is larger.

    more: a network may differ by this many times what bf16 changes on the CPU, where that is more: rounding changes some networks
    much, such as a teacher with ReLUs."""

    name: str
    loss: float
    gradient: float
    floor: float
    more: float = 0.0

    def allowing(self, usual: "Difference") -> "Mode":
        return replace(
            self, loss=max(self.loss, self.more * usual.loss), gradient=max(self.gradient, self.more * usual.gradient)
        )


MODES = (
    Mode("fp32", 1e-4, 2e-3, 1e-3),      # no TF32
    Mode("tf32", 5e-3, 5e-2, 0.1, 1.0),      # convolutions in TF32, products in float32: PyTorch's own setting
    Mode("bf16", 1e-2, 1e-1, 0.1, 4.0),      # autocast
)
_STEP, _SPREAD = 1, 0.05


@dataclass(frozen=True)
class Difference:
    """loss: relative; gradient: the largest of all parameters, and where it is."""

    loss: float
    gradient: float
    where: str

    def row(self, mode: Mode) -> Row:
        fine = self.loss <= mode.loss and self.gradient <= mode.gradient      # False for nan
        row = {"loss": self.loss, "gradient": self.gradient, "bounds": [mode.loss, mode.gradient]}
        return row if fine else {**row, "outcome": "differs", "where": self.where}


def modes(device: str) -> tuple[Mode, ...]:
    """A CPU has no TF32."""
    return tuple(mode for mode in MODES if mode.name != "tf32" or device != "cpu")


def compared(method: Method, device: str) -> Iterator[tuple[Mode, Difference]]:
    """The differences in each mode, the largest of all players."""
    plain, task, batch = method.build("cpu"), method.build(device), method.batch()
    states = _states(plain)
    wanted = _results(plain, batch, "cpu", MODES[0])
    _load(plain, states)
    usual = _difference(wanted, _results(plain, batch, "cpu", MODES[-1]), MODES[-1].floor)
    for mode in modes(device):
        _load(task, states)
        yield mode.allowing(usual), _difference(wanted, _results(task, batch, device, mode), mode.floor)


def _states(task: Task) -> dict[str, dict[str, Tensor]]:
    """Weights of the players in which none is 0, so that gradients reach every layer, and buffers as they are."""
    drawn, found = torch.Generator().manual_seed(0), {}
    for player, module in task.players.items():
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name in trained:
                    parameter.add_(_SPREAD * torch.randn(parameter.shape, generator=drawn))
        found[player] = {name: value.clone() for name, value in module.state_dict().items()}
    return found


def _load(task: Task, states: dict[str, dict[str, Tensor]]) -> None:
    for player, state in states.items():
        task.players[player].load_state_dict(state)


def _results(task: Task, batch: Batch, device: str, mode: Mode) -> dict[str, tuple[float, dict[str, Tensor]]]:
    """Player -> loss and gradients by name, in float64 on the host."""
    found = {}
    trained = {
        player: {name: one for name, one in module.named_parameters() if one.requires_grad}
        for player, module in task.players.items()
    }
    with _in_mode(task, mode, device):
        for player, parameters in trained.items():
            for other, others in trained.items():
                for parameter in others.values():
                    parameter.grad = None
                    parameter.requires_grad_(other == player)
            draws = streams(0, _STEP, player, batch=len(batch), device=device)
            with autocast("bf16" if mode.name == "bf16" else "fp32", device):
                loss = task.loss(player, batch, draws, _STEP).total
            loss.backward()
            gradients = {name: one.grad.double().cpu() for name, one in parameters.items() if one.grad is not None}
            found[player] = (float(loss.detach().double()), gradients)
    for parameters in trained.values():
        for parameter in parameters.values():
            parameter.requires_grad_(True)
    return found


@contextmanager
def _in_mode(task: Task, mode: Mode, device: str) -> Iterator[None]:
    """Frozen networks in the mode's precision too, as a run on a GPU has them."""
    for module in frozen_in(task):
        for part in module.modules():
            if isinstance(part, Teacher | PerceptualDistance):
                part.precision = "bf16" if mode.name == "bf16" else "fp32"
    with exact_convolutions() if mode.name == "fp32" else nullcontext():
        yield


def _difference(wanted: dict[str, Any], found: dict[str, Any], floor: float) -> Difference:
    each = [_of_player(player, *wanted[player], *found[player], floor) for player in wanted]
    worst = max(each, key=lambda one: (one.gradient != one.gradient, one.gradient))
    return Difference(max(one.loss for one in each), worst.gradient, worst.where)


def _of_player(
    player: str, loss: float, gradients: dict[str, Tensor], ours: float, our_gradients: dict[str, Tensor], floor: float
) -> Difference:
    if gradients.keys() != our_gradients.keys():
        missing = sorted(gradients.keys() ^ our_gradients.keys())
        return Difference(0.0, float("inf"), f"{player}: {missing[0]} has a gradient on one side only")
    least = floor * _norm(list(gradients.values()))
    errors = {name: float((our_gradients[name] - one).norm()) / max(float(one.norm()), least) for name, one in gradients.items()}
    where = max(errors, key=lambda name: (errors[name] != errors[name], errors[name]))
    return Difference(abs(ours - loss) / abs(loss), errors[where], f"{player}: {where}")


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([one.square().sum() for one in tensors]).sum().sqrt())
