"""Compare the closed forms with quadrature, with regression on Gaussian fields, and with spectrum.md#noise-crossing."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import torch
from torch.testing import assert_close

from smtool.spectrum import (
    crossing_abar,
    crossing_time,
    learnable_power,
    learnable_power_ddpm,
    mean_velocity_floor,
    recoloured_crossing,
    spectral_flatness,
    time_shift,
    velocity_explained,
    velocity_floor,
)

POWER = torch.tensor([30.0, 10.0, 1.0, 0.1, 0.01], dtype=torch.float64)
TIMES = torch.linspace(0.05, 1.0, 20, dtype=torch.float64)[:, None]


def test_the_perfect_linear_network_has_the_floor_of_the_closed_form():
    """Per-cell regression fitted on 2000 and tested on 2000 fields of spectrum 1/f^2, 32 x 32: every band within 1 % at every t.

    The test uses the remaining error, not its reduction, which is a small difference of large numbers.
    """
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(32, dtype=torch.float64)
    radius = (axis.square()[:, None] + axis.square()).sqrt().flatten()[1:]
    power = radius**-2 * len(radius) / (radius**-2).sum()
    band = (3 * radius / 32).long().clamp(max=2)
    shape = (4000, len(power))
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * power.sqrt()
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    for t in (0.1, 0.3, 0.5, 0.7, 0.9):
        x_t, velocity = (1 - t) * x + t * noise, noise - x
        slope = (x_t * velocity)[:2000].sum(0) / x_t[:2000].square().sum(0)
        error = (velocity - slope * x_t)[2000:].square().mean(0)
        excess = error / velocity_floor(power, torch.tensor(t))
        for b in range(3):
            assert excess[band == b].mean().item() == pytest.approx(1, abs=0.01), (t, b)


@pytest.mark.parametrize("power", POWER.tolist())
def test_the_floor_averaged_over_time_equals_quadrature(power):
    expected, _ = scipy.integrate.quad(lambda t: power / ((1 - t) ** 2 * power + t**2), 0, 1, epsabs=0, epsrel=1e-12)
    assert mean_velocity_floor(torch.tensor(power, dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-10)


def test_learnable_power_is_what_the_posterior_variance_leaves():
    """Learnable power is S - V with the posterior variance 1 / V = 1/S + (1-t)^2 / t^2; the floor of the velocity is V / t^2."""
    posterior = 1 / (1 / POWER + (1 - TIMES).square() / TIMES.square())
    assert_close(learnable_power(POWER, TIMES, "x"), POWER - posterior, rtol=0, atol=1e-12)
    assert_close(velocity_floor(POWER, TIMES), posterior / TIMES.square(), rtol=1e-12, atol=0)
    assert_close(learnable_power(POWER, TIMES), (POWER - posterior) / TIMES.square(), rtol=0, atol=1e-10)
    weight = ((1 - TIMES) / TIMES).square()
    assert_close(learnable_power(POWER, TIMES, "noise"), (POWER - posterior) * weight, rtol=0, atol=1e-10)


def test_the_two_paths_agree_where_their_signal_to_noise_ratios_do():
    abar = (1 - TIMES).square() / ((1 - TIMES).square() + TIMES.square())
    assert_close(learnable_power_ddpm(POWER, abar, "x"), learnable_power(POWER, TIMES, "x"), rtol=1e-12, atol=1e-300)
    assert_close(learnable_power_ddpm(POWER, abar), learnable_power(POWER, TIMES, "noise"), rtol=1e-12, atol=1e-300)
    velocity = learnable_power(POWER, TIMES, "x") / (1 - abar)
    assert_close(learnable_power_ddpm(POWER, abar, "velocity"), velocity, rtol=1e-12, atol=1e-300)


def test_floor_and_explained_velocity_add_up_to_its_variance():
    assert_close(velocity_floor(POWER, TIMES) + velocity_explained(POWER, TIMES), (POWER + 1).expand(20, 5), rtol=1e-12, atol=0)
    assert_close(velocity_explained(POWER, POWER / (1 + POWER)), torch.zeros_like(POWER), rtol=0, atol=1e-12)


def test_a_target_without_a_meaning_is_refused():
    with pytest.raises(ValueError, match="'x', 'velocity' or 'noise', but is 'v'"):
        learnable_power(POWER, TIMES, "v")


def test_the_snr_of_coefficients_falls_below_1_at_the_documented_times():
    """S = 10, 1, .1, .01: flow times .76, .50, .24, .09, steps 687, 354, 88, 11 of the scaled-linear schedule.

    These are the values of spectrum.md#noise-crossing.
    """
    power = torch.tensor([10.0, 1.0, 0.1, 0.01], dtype=torch.float64)
    assert_close(crossing_time(power), torch.tensor([0.76, 0.50, 0.24, 0.09], dtype=torch.float64), rtol=0, atol=0.005)
    time = crossing_time(power)
    assert_close((1 - time).square() * power / time.square(), torch.ones_like(power), rtol=1e-12, atol=0)
    beta = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    abar = np.cumprod(1 - beta)
    assert [int((abar > level).sum()) for level in crossing_abar(power).tolist()] == pytest.approx([687, 354, 88, 11], abs=1)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_a_gain_is_shifted_away_by_both_rules(gain):
    count = torch.tensor([1, 2, 4, 8, 16])
    shift = time_shift(POWER, POWER * gain**2, count=count)
    assert shift.by_cells == pytest.approx(gain, rel=1e-12)
    assert shift.by_energy == pytest.approx(gain, rel=1e-9)
    assert not shift.rules_disagree
    assert shift.spread == pytest.approx(0.5 * math.log(3000), rel=1e-12)
    late = shift.by_cells * TIMES / (1 + (shift.by_cells - 1) * TIMES)
    of_reference = (1 - TIMES).square() * POWER / TIMES.square()
    assert_close((1 - late).square() * gain**2 * POWER / late.square(), of_reference, rtol=1e-9, atol=1e-12)


def test_a_ring_weighs_as_many_cells_as_it_has():
    count, other = torch.tensor([2, 5, 9, 14, 30]), torch.tensor([9.0, 8.0, 2.0, 0.4, 0.1], dtype=torch.float64)
    rings = time_shift(POWER, other, count=count)
    cells = time_shift(POWER.repeat_interleave(count), other.repeat_interleave(count), count=torch.ones(60))
    assert (rings.by_cells, rings.by_energy) == pytest.approx((cells.by_cells, cells.by_energy), rel=1e-9)


def test_twice_the_resolution_at_unit_variance_is_nearly_a_gain_of_two():
    """SD3's rule gives 2. Photographs give 1.87, as the added cells have part of the variance (spectrum.md#noise-crossing)."""
    radius = [(torch.arange(side).square()[:, None] + torch.arange(side).square()).double().flatten()[1:] for side in (32, 64)]
    small, large = (1 / r * len(r) / (1 / r).sum() for r in radius)
    matched = large[torch.arange(64 * 64)[1:].view(-1) % 64 < 32][: 32 * 32 - 1]
    shift = time_shift(small, matched, count=torch.ones(32 * 32 - 1))
    assert shift.by_cells == pytest.approx(shift.by_energy, rel=1e-9)
    assert 1.7 < shift.by_cells < 2


def test_a_shift_cannot_change_a_slope_and_the_two_rules_say_so():
    """Slopes 1 and 2 at 32 cells and unit variance: the shift by energy is 2.65, the shift by cells is below 1."""
    axis = torch.arange(32, dtype=torch.float64) / 64
    frequency = (axis.square()[:, None] + axis.square()).sqrt().flatten()[1:]
    frequency = frequency[frequency <= 0.5]
    shallow, steep = (frequency**-a / (frequency**-a).mean() for a in (1, 2))
    shift = time_shift(shallow, steep, count=torch.ones_like(frequency))
    assert shift.by_energy == pytest.approx(2.65, abs=0.03)
    assert shift.by_cells == pytest.approx(0.602, abs=0.001)       # 64 cells a side give .56
    expected = (steep.log() - shallow.log()).mean().item() / 2
    assert shift.by_cells == pytest.approx(math.exp(expected), rel=1e-12)
    assert shift.spread == pytest.approx(math.log(frequency[-1] / frequency[0]), rel=1e-12)
    assert shift.rules_disagree


def test_spectra_that_do_not_match_have_no_shift():
    with pytest.raises(ValueError, match="one value per matched cell"):
        time_shift(POWER, POWER[:3], count=torch.ones(5))
    with pytest.raises(ValueError, match="positive power in every cell"):
        time_shift(POWER, POWER * 0, count=torch.ones(5))


def test_flatness_is_geometric_over_arithmetic_mean(rng):
    power = rng.random((3, 20))
    expected = power.prod(1) ** (1 / 20) / power.mean(1)
    np.testing.assert_allclose(spectral_flatness(torch.from_numpy(power)).numpy(), expected, rtol=1e-10)
    assert spectral_flatness(torch.full((7,), 3.0)).item() == pytest.approx(1)
    assert spectral_flatness(torch.tensor([1.0, 0.0])).item() == 0


def test_a_gain_of_one_band_is_a_time_shift_of_its_crossing():
    """The SNR of a coefficient times g is 1 where the shift by g maps the old crossing: found here by bisection on the SNR."""
    law, count = torch.tensor([1.0, 0.7, 0.5, 0.2, 0.1]), torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    found = recoloured_crossing(POWER, law, count=count)
    assert_close((found.power * count).sum(), (POWER * count).sum())
    assert_close(found.power / found.power[0], law.double())
    for old, gain, crossing in zip(POWER.tolist(), found.shift.tolist(), found.crossing.tolist(), strict=True):
        snr = scipy.optimize.brentq(lambda t, s=old, g=gain: ((1 - t) * g) ** 2 * s - t**2, 0, 1)
        assert crossing == pytest.approx(snr, abs=1e-9)
        before = scipy.optimize.brentq(lambda t, s=old: (1 - t) ** 2 * s - t**2, 0, 1)
        assert crossing == pytest.approx(gain * before / (1 + (gain - 1) * before), abs=1e-9)


def test_white_latents_of_variance_1_lose_all_bands_at_one_half():
    power = POWER / POWER.mean()
    found = recoloured_crossing(power, torch.ones(5), count=torch.ones(5))
    assert_close(found.crossing, torch.full((5,), 0.5, dtype=torch.float64))


def test_recolouring_needs_matching_positive_bands():
    with pytest.raises(ValueError, match="one value per band"):
        recoloured_crossing(POWER, torch.ones(4), count=torch.ones(5))
    with pytest.raises(ValueError, match="positive power"):
        recoloured_crossing(POWER, torch.zeros(5), count=torch.ones(5))
