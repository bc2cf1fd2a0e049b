import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from smtool.randomness import Normals, generator, initializing, noise_of, permutation, streams


def test_numbers_of_a_sample_do_not_depend_on_how_the_batch_is_divided():
    whole = streams(7, 3, "autoencoder", batch=12)
    parts = [whole.at(start, start + 4) for start in (0, 4, 8)]
    noise = whole.batch("posterior", (12, 2, 5))
    assert torch.equal(noise, torch.cat([part.batch("posterior", (4, 2, 5)) for part in parts]))
    assert torch.equal(whole.uniform("t", (12,)), torch.cat([part.uniform("t", (4,)) for part in parts]))
    assert torch.equal(whole.integers("n", 9, (12,)), torch.cat([part.integers("n", 9, (4,)) for part in parts]))


def test_noise_of_a_sample_does_not_depend_on_the_size_of_the_batch_or_on_its_neighbours():
    small, large = (streams(7, 3, "autoencoder", batch=batch).batch("x", (batch, 5, 7, 91)) for batch in (3, 8))
    assert torch.equal(small, large[:3])
    for start, stop in ((0, 1), (2, 3), (5, 8)):      # 3,185 numbers a sample: blocks of 8,192 begin within samples
        part = Normals(7, 3, "autoencoder", "x", (5, 7, 91), start, stop, 8).drawn()
        assert torch.equal(part, large[start:stop])


def test_noise_is_box_mullers_transform_of_philox():
    key = hashlib.sha256("\x1f".join(["int:7", "int:3", "str:turn", "str:batch", "str:x"]).encode()).digest()[:16]
    words = np.random.Philox(key=np.frombuffer(key, np.uint64)).random_raw(8192).view(np.uint32)
    found = Normals(7, 3, "turn", "x", (6000,), 0, 2, 2).drawn().flatten()
    for place in (0, 1, 4095, 4096, 8191, 8192, 9000, 11_999):
        block, inside = divmod(place, 8192)
        radius, angle = (int(words[block * 8192 + half * 4096 + inside % 4096]) for half in (0, 1))
        radius, angle = math.sqrt(-2 * math.log((radius % 2**31 + 0.5) / 2**31)), angle / 2**31 * math.pi
        expected = radius * (math.cos(angle) if inside < 4096 else math.sin(angle))
        assert found[place] == pytest.approx(expected, abs=2e-6)      # float32 of an angle up to 2 pi


def test_noise_is_standard_normal_and_independent():
    noise = torch.stack([Normals(0, step, "a", "x", (2048,), 0, 8, 8).drawn() for step in range(4)]).double()
    assert scipy.stats.kstest(noise.flatten(), "norm").pvalue > 0.01
    assert scipy.stats.kstest(noise.square().sum(-1).flatten(), "chi2", args=(2048,)).pvalue > 0.01
    correlations = torch.corrcoef(noise.flatten(0, 1)) - torch.eye(32)
    assert correlations.abs().max() < 0.12      # 496 pairs, sd 0.022


def test_scheme_1_is_one_draw_for_the_whole_batch():
    old = replace(streams(7, 3, "a", batch=6, scheme=1), start=2, stop=4)
    expected = torch.randn(6, 2, 5, generator=generator(7, 3, "a", "batch", "x"))[2:4]
    assert torch.equal(old.batch("x", (2, 2, 5)), expected)


def test_shared_numbers_are_the_same_in_every_part():
    whole = streams(7, 3, "autoencoder", batch=12)
    assert torch.equal(torch.rand(4, generator=whole.shared("dsm")), torch.rand(4, generator=whole.at(4, 8).shared("dsm")))


@pytest.mark.parametrize("other", [(8, 3, "autoencoder"), (7, 4, "autoencoder"), (7, 3, "discriminator")])
def test_every_part_of_the_key_changes_the_numbers(other):
    mine = streams(7, 3, "autoencoder", batch=64).batch("posterior", (64, 100))
    theirs = streams(*other, batch=64).batch("posterior", (64, 100))
    correlation = torch.corrcoef(torch.stack([mine.flatten(), theirs.flatten()]))[0, 1]
    assert abs(correlation) < 0.05        # 6,400 numbers: sd 0.0125
    assert not torch.equal(mine, streams(7, 3, "autoencoder", batch=64).batch("t", (64, 100)))


def test_the_global_generator_is_not_changed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    streams(0, 0, "a", batch=2).batch("x", (2, 3))
    permutation(10, 0, 1)
    with initializing(0, "autoencoder"):
        first = torch.nn.Linear(3, 3).weight
    assert torch.equal(torch.get_rng_state(), before)
    with initializing(0, "autoencoder"):
        assert torch.equal(torch.nn.Linear(3, 3).weight, first)


def test_permutation_holds_every_index_once_and_follows_its_key():
    assert sorted(permutation(1000, 3, 0).tolist()) == list(range(1000))
    assert not torch.equal(permutation(1000, 3, 0), permutation(1000, 3, 1))


def test_a_wrong_batch_size_is_refused():
    with pytest.raises(ValueError, match="asks for 5 samples"):
        streams(0, 0, "a", batch=4).batch("x", (5, 2))


def test_noise_of_generators_is_a_draw_of_each():
    found = noise_of((generator("a", number) for number in range(3)), (2, 4))
    assert torch.equal(found[2], torch.randn(2, 4, generator=generator("a", 2)))
    assert found.shape == (3, 2, 4)
