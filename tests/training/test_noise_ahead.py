"""Noise drawn ahead by a thread is the noise that would be drawn when it is asked for."""

import threading

import torch

from smtool.randomness import Normals, streams
from smtool.training.noise_ahead import NoiseAhead


def _turn(noise, player, step, *names):
    """What a player draws in a step, in two micro-batches."""
    draws = noise.supplied(streams(3, step, player, batch=4), player)
    return [draws.at(low, low + 2).batch(name, (2, 3)) for low in (0, 2) for name in names]


def _plain(player, step, *names):
    draws = streams(3, step, player, batch=4)
    return [draws.at(low, low + 2).batch(name, (2, 3)) for low in (0, 2) for name in names]


def test_a_turn_gets_its_own_noise_whether_it_was_foreseen_or_not(monkeypatch):
    drawn, original = [], Normals.drawn

    def noted(asked):
        drawn.append((asked.step, asked.name, asked.start))
        return original(asked)

    monkeypatch.setattr(Normals, "drawn", noted)
    with NoiseAhead("cpu") as noise:
        for step, names in enumerate([("a",), ("a", "b"), ("a", "b"), ("b",), ("b",)]):
            noise.prepare(["first"], step + 1)
            found = _turn(noise, "first", step, *names)
            assert all(map(torch.equal, found, _plain("first", step, *names)))      # drawn by streams of their own
    assert sorted(one for one in drawn if one[0] == 2) == [(2, "a", 0), (2, "a", 2), (2, "b", 0), (2, "b", 2)]


def test_foreseen_noise_is_drawn_by_the_thread(monkeypatch):
    threads, original = {}, Normals.drawn

    def noted(asked):
        threads[asked.step] = threading.current_thread().name
        return original(asked)

    monkeypatch.setattr(Normals, "drawn", noted)
    with NoiseAhead("cpu") as noise:
        for step in range(3):
            noise.prepare(["first"] if step else [], step + 1)
            _turn(noise, "first", step, "a")
    assert threads[0] == threading.current_thread().name
    assert threads[2].startswith("noise")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("noise")]
