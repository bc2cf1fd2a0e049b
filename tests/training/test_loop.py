"""The training loop equals a simple loop, and does not depend on micro-batches."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from smtool.randomness import streams
from smtool.training.distributed import Ranks
from smtool.training.loop import Plan, Training, optimize
from smtool.training.optimizer import AdamW
from smtool.training.precision import MixedPrecision
from smtool.training.terms import Loss


@dataclass(frozen=True)
class Rows:
    x: torch.Tensor

    def __len__(self) -> int:
        return len(self.x)

    def slice(self, start: int, stop: int) -> "Rows":
        return Rows(self.x[start:stop])


class Regression:
    """Two alternating players, each a linear map of rows with added noise; the noise belongs to the sample."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.players = {"first": nn.Linear(3, 1), "second": nn.Linear(3, 1)}

    def players_at(self, step: int) -> tuple[str, ...]:
        return ("first",) if step % 2 == 0 else ("first", "second")

    def count_turns(self, player: str, steps: int) -> int:
        return steps if player == "first" else steps // 2

    def loss(self, player, batch, draws, step) -> Loss:
        noisy = batch.x + draws.batch("noise", batch.x.shape)
        value = self.players[player](noisy).square().mean()
        return Loss(value, {player: value.detach()})


def _batches(first: int = 0):
    step = first
    while True:
        yield Rows(torch.randn(8, 3, generator=torch.Generator().manual_seed(step)))
        step += 1


def _training(task: Regression, *, accumulate: int = 1, steps: int = 6) -> Training:
    table = AdamW(lr=0.05, warmup=0)
    optimizers = {name: table.build(module.named_parameters(), "cpu") for name, module in task.players.items()}
    return Training(task, optimizers, {}, MixedPrecision("fp32", "cpu"), Ranks(0, 1, "cpu"), Plan(5, 8, accumulate, steps))


def test_loop_equals_a_simple_loop():
    task, plain = Regression(), Regression()
    reports = list(optimize(_training(task), _batches(), first_step=0))
    oracle = {name: torch.optim.AdamW(m.parameters(), lr=0.05, weight_decay=0.005) for name, m in plain.players.items()}
    for step, batch in zip(range(6), _batches(), strict=False):
        for player in plain.players_at(step):
            oracle[player].zero_grad()
            noise = streams(5, step, player, batch=8).batch("noise", (8, 3))
            plain.players[player](batch.x + noise).square().mean().backward()
            nn.utils.clip_grad_norm_(plain.players[player].parameters(), 1.0)
            oracle[player].step()
    for player in task.players:
        assert torch.equal(task.players[player].weight, plain.players[player].weight)
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
    assert set(reports[0].values) == {"first", "first_gradient"}
    assert set(reports[1].values) == {"first", "first_gradient", "second", "second_gradient"}


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_change_only_rounding(accumulate):
    whole, parts = Regression(), Regression()
    list(optimize(_training(whole), _batches(), first_step=0))
    list(optimize(_training(parts, accumulate=accumulate), _batches(), first_step=0))
    for player in whole.players:
        torch.testing.assert_close(parts.players[player].weight, whole.players[player].weight, rtol=1e-5, atol=1e-6)


def test_only_parameters_of_the_updated_player_require_gradients():
    task = Regression()
    seen = []
    original = task.loss

    def watching(player, batch, draws, step):
        seen.append({name: module.weight.requires_grad for name, module in task.players.items()})
        return original(player, batch, draws, step)

    task.loss = watching
    list(optimize(_training(task, steps=2), _batches(), first_step=0))
    assert seen == [{"first": True, "second": False}, {"first": True, "second": False}, {"first": False, "second": True}]


def test_a_resumed_run_draws_the_numbers_of_an_uninterrupted_run():
    unbroken, broken = Regression(), Regression()
    list(optimize(_training(unbroken), _batches(), first_step=0))
    training = _training(broken)
    for report in optimize(training, _batches(), first_step=0):
        if report.step == 3:
            break
    list(optimize(training, _batches(first=3), first_step=3))
    assert torch.equal(unbroken.players["second"].weight, broken.players["second"].weight)
