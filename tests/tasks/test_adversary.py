import pytest
import torch
from torch import nn

from smtool.regularizers import Pair
from smtool.tasks.adversary import Adversary, hinge_discriminator, hinge_generator


@pytest.mark.parametrize(("steps", "generator", "discriminator"), [(500_000, 275_000, 225_000), (600_000, 325_000, 275_000)])
def test_released_alternation_gives_the_published_numbers_of_updates(steps, generator, discriminator):
    table = Adversary()        # start 50,001; released-code.md#discriminator
    assert table.count_turns("autoencoder", steps) == generator
    assert table.count_turns("discriminator", steps) == discriminator


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
@pytest.mark.parametrize("start", [0, 1, 4, 7, 100])
@pytest.mark.parametrize("alone", [0, 1, 4])
def test_count_turns_agrees_with_players_at(updates, start, alone):
    table = Adversary(start=start, updates=updates, alone=alone)
    for steps in range(14):
        taken = [player for step in range(steps) for player in table.players_at(step)]
        assert table.count_turns("autoencoder", steps) == taken.count("autoencoder")
        assert table.count_turns("discriminator", steps) == taken.count("discriminator")


def test_the_discriminator_trains_alone_and_enters_with_a_ramp():
    table = Adversary(weight=0.5, start=2, alone=3, ramp=4, updates="simultaneous")
    assert [table.players_at(step) for step in range(6)] == [
        *[("autoencoder",)] * 2, *[("discriminator",)] * 3, ("autoencoder", "discriminator"),
    ]
    assert [table.weight_at(step) for step in range(5, 11)] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert Adversary(start=5).weight_at(5) == 0.5


def test_hinge_losses_equal_their_definition():
    critic = nn.Flatten()        # a critic whose logits are its inputs
    real, fake = torch.tensor([[2.0], [0.5], [-1.0]]), torch.tensor([[-3.0], [0.0], [0.5]])
    values = hinge_discriminator(critic, [real], [fake])
    assert values["discriminator"].item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 1.5) / 3)
    assert values["logits_real"].item() == pytest.approx(0.5)
    assert values["logits_fake"].item() == pytest.approx(-2.5 / 3)


def test_generator_term_weighs_its_pairs():
    pairs = [Pair(torch.zeros(2, 1), torch.zeros(2, 1)), Pair(torch.zeros(2, 1), torch.zeros(2, 1), 0.25)]
    value = hinge_generator(nn.Flatten(), pairs, [torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0], [4.0]])])
    assert value.item() == pytest.approx(-2.0 - 0.25 * 4)


def test_a_table_without_a_weight_is_refused():
    with pytest.raises(ValueError, match="weight"):
        Adversary(weight=0.0)
