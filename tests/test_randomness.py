import pytest
import torch

from smtool.randomness import generator, initializing, noise_of, permutation, streams


def test_numbers_of_a_sample_do_not_depend_on_how_the_batch_is_divided():
    whole = streams(7, 3, "autoencoder", batch=12)
    parts = [whole.at(start, start + 4) for start in (0, 4, 8)]
    noise = whole.batch("posterior", (12, 2, 5))
    assert torch.equal(noise, torch.cat([part.batch("posterior", (4, 2, 5)) for part in parts]))
    assert torch.equal(whole.uniform("t", (12,)), torch.cat([part.uniform("t", (4,)) for part in parts]))
    assert torch.equal(whole.integers("n", 9, (12,)), torch.cat([part.integers("n", 9, (4,)) for part in parts]))


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
