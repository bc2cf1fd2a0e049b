import numpy as np
import pytest
import scipy.integrate

from smtool.diffusability.sections.noise_crossing import measure
from smtool.diffusability.sections.parts import Reason
from smtool.diffusability.sections.physical import PhysicalReading

CYCLES = [0.5 * k for k in range(1, 33)]
CELLS = [3 * k for k in range(1, 33)]


def reading(power, *, gain: float = 1.0, rings: int = 32) -> PhysicalReading:
    powers = [gain * float(power(f)) for f in CYCLES[:rings]]
    return PhysicalReading.model_construct(
        posterior="sample", cycles_per_side=CYCLES[:rings], cells=CELLS[:rings], power=powers
    )


def white(f: float) -> float:
    return 1.0


def test_the_floor_is_what_a_regression_of_the_velocity_leaves(rng):
    found = measure(reading(lambda f: 4.0 * f**-1.5), None)
    ring, time = 9, 19
    t, s = found.times[time], found.power[ring]
    x, noise = rng.standard_normal(400_000) * np.sqrt(s), rng.standard_normal(400_000)
    seen, velocity = (1 - t) * x + t * noise, noise - x
    slope = (seen * velocity).sum() / (seen**2).sum()
    assert found.floor[time][ring] == pytest.approx(((velocity - slope * seen) ** 2).mean(), rel=0.01)
    back = (seen * x).sum() / (seen**2).sum()
    assert found.learnable[time][ring] == pytest.approx(s - ((x - back * seen) ** 2).mean(), rel=0.01)


def test_a_rings_share_of_the_floor_is_that_of_an_integral_over_time():
    found = measure(reading(lambda f: 4.0 * f**-2), None)
    floors = [
        cells * scipy.integrate.quad(lambda t, s=s: s / ((1 - t) ** 2 * s + t**2), 0, 1)[0]
        for s, cells in zip(found.power, found.count, strict=True)
    ]
    np.testing.assert_allclose(found.floor_share, np.array(floors) / sum(floors), rtol=1e-5)


def test_the_snr_of_bands_falls_below_1_at_the_closed_form_times():
    found = measure(reading(lambda f: 10.0 / 10 ** (2 * f - 1)), None)
    np.testing.assert_allclose(found.crossing[:4], [0.76, 0.50, 0.24, 0.09], atol=0.005)


def test_a_gain_is_a_shift_by_its_ratio_of_standard_deviations():
    shift = measure(reading(white, gain=9.0), ("quiet", reading(white))).shift
    assert shift.reference == "quiet"
    assert shift.by_cells == pytest.approx(3.0)
    assert shift.by_energy == pytest.approx(3.0, rel=1e-6)
    assert not shift.cannot_change


def test_latents_of_two_sizes_are_matched_in_cycles_per_image():
    large, small = reading(lambda f: 4 * f**-2), reading(lambda f: f**-2, rings=16)
    for head, other, expected in ((large, small, 2.0), (small, large, 0.5)):
        assert measure(head, ("other", other)).shift.by_cells == pytest.approx(expected, rel=1e-6)


def test_a_shift_cannot_match_spectra_of_another_shape():
    """Slopes 1 and 2 at equal total power: the rules by cells and by energy give shifts in opposite directions."""
    cells = np.array(CELLS)
    flat, steep = (np.array(CYCLES) ** -a for a in (1.0, 2.0))
    equal = (cells * flat).sum() / (cells * steep).sum()
    shift = measure(reading(lambda f: f**-2.0, gain=equal), ("flat", reading(lambda f: 1 / f))).shift
    assert shift.by_cells < 1 < shift.by_energy
    assert shift.cannot_change


def test_the_reference_itself_has_no_shift():
    assert measure(reading(white), None).shift == Reason(reason="it is the reference")


def test_euler_maruyama_damps_weak_bands_as_published():
    """S' / S = .61 for S = .01, .98 for 1, .92 for 100 after 100 steps (released-code.md#euler-maruyama)."""
    found = measure(reading(lambda f: {0.5: 100.0, 1.0: 1.0}.get(f, 0.01)), None)
    run = next(entry for entry in found.damping if (entry.sampler, entry.steps) == ("euler-maruyama", 100))
    np.testing.assert_allclose(run.whole[:3], [0.92, 0.98, 0.61], atol=0.006)
    assert run.factor[2] < 0.99 < run.factor[0]


def test_a_latent_with_a_ring_without_power_gives_a_reason():
    assert "no power" in measure(reading(lambda f: 0.0), None).reason
