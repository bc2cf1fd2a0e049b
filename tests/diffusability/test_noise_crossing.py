import numpy as np
import pytest
import scipy.integrate

from smtool.diffusability.sections.autoregression import table
from smtool.diffusability.sections.noise_crossing import findings, measure
from smtool.diffusability.sections.parts import Reason
from smtool.diffusability.sections.physical import PhysicalReading, Slope, Target

CYCLES = [0.5 * k for k in range(1, 33)]
CELLS = [3 * k for k in range(1, 33)]


def reading(
    power, *, gain: float = 1.0, rings: int = 32, slope: Slope | Reason = Reason(reason="too few rings")
) -> PhysicalReading:
    powers = [gain * float(power(f)) for f in CYCLES[:rings]]
    return PhysicalReading.model_construct(
        posterior="sample", cycles_per_side=CYCLES[:rings], cells=CELLS[:rings], power=powers,
        target=Target.model_construct(delta=0.5, power=[7.0 * f**-1.5 for f in CYCLES[:rings]]),
        size=(rings, rings), slope=slope,
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


def test_recolouring_gives_the_crossing_times_of_the_law_at_equal_total_power():
    found = measure(reading(lambda f: 4.0 * f**-2.5), None)
    flattened, whitened = found.recoloured
    assert (flattened.flatten, whitened.flatten) == (0.5, "white")
    cells, total = np.array(CELLS), np.dot(CELLS, found.power)
    law = np.array(CYCLES) ** -1.5
    root = np.sqrt(law * total / (cells * law).sum())
    np.testing.assert_allclose(flattened.crossing, root / (1 + root), rtol=1e-6)
    np.testing.assert_allclose(flattened.shift, root / np.sqrt(found.power), rtol=1e-6)
    np.testing.assert_allclose(np.ptp(whitened.crossing), 0, atol=1e-9)
    t, shifted = np.array(found.crossing), np.array(whitened.crossing)      # each ring has its own time shift t'
    s = np.array(whitened.shift)
    np.testing.assert_allclose(s * t / (1 + (s - 1) * t), shifted, rtol=1e-5)


def test_the_report_says_which_recolouring_would_change_the_crossing_times():
    steep = measure(reading(lambda f: 4.0 * f**-2.5), None)
    said = next(one for one in findings(steep) if one.topic == "recolouring")
    first, last = steep.recoloured[0].span
    assert f"{last:.2f} and {first:.2f} with flatten = 0.5, " in said.sentence and "with flatten = white." in said.sentence
    assert said.numbers["first_0.5"] == first
    asked = measure(reading(lambda f: 3.0 * f**-1.5), None)      # already on the target's law: only white is named
    said = next(one for one in findings(asked) if one.topic == "recolouring")
    assert "0.5" not in said.sentence.split("to ")[1].split(" with")[1] and "white" in said.sentence


def test_images_with_an_empty_ring_leave_only_white():
    head = reading(lambda f: 1 / f)
    head.target.power[3] = 0.0
    assert [one.flatten for one in measure(head, None).recoloured] == ["white"]


def fitted(exponent: float) -> Slope:
    return Slope.model_construct(exponent=exponent, fit_range=(0.9 / 32, 0.5))


def test_the_highest_frequency_of_every_process_is_the_closed_form_of_the_power_law():
    found = measure(reading(lambda f: 4.0 * f**-2, slope=fitted(2.0)), None, threshold=2.0).autoregression
    assert [(one.process, one.snr_scale) for one in found.processes] == [("flow", 1), ("ddpm", 1), ("vp-sde", 1), ("vp-sde", 4)]
    assert (found.threshold, found.level) == (2.0, pytest.approx(4.0))
    beta = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    abar = np.cumprod(1 - beta)
    for t, flow, ddpm, vp, scaled in zip(found.times, *(one.measured for one in found.processes), strict=True):
        decay = np.exp(-(0.1 * t + 9.95 * t * t))
        discrete = abar[round(1000 * t) - 1]
        scales = ((1 - t) ** 2 / t**2, discrete / (1 - discrete), decay / (1 - decay), 4 * decay / (1 - decay))
        for value, ratio in zip((flow, ddpm, vp, scaled), scales, strict=True):
            expected = np.sqrt(4 * ratio / 2)
            if expected < CYCLES[0]:
                assert value is None
            else:
                assert value == pytest.approx(min(expected, CYCLES[-1]), rel=1e-6)
    for one in found.processes:
        falling = [value for value in one.measured if value is not None]
        assert len(falling) > 5 and falling == sorted(falling, reverse=True)


def test_the_report_says_how_well_the_power_law_follows_and_what_a_larger_snr_does():
    straight = measure(reading(lambda f: 4.0 * f**-2, slope=fitted(2.0)), None)
    said = next(one for one in findings(straight) if one.topic == "autoregression")
    assert "follows the fitted power law (rms error 0.00 octaves)" in said.sentence
    assert "4 times as large multiplies it by 2.00, and by 2.00 in that law" in said.sentence
    bent = measure(reading(lambda f: 4.0 * (f**-1 if f < 4 else 256 * f**-5.0), slope=fitted(2.0)), None)
    assert bent.autoregression.rms_octaves > 0.25
    assert "does not follow" in next(one for one in findings(bent) if one.topic == "autoregression").sentence


def test_latents_without_a_falling_power_law_have_no_prediction_and_no_finding():
    for slope, says in ((fitted(-0.1), "does not fall with frequency"), (Reason(reason="too few cells"), "too few cells")):
        found = measure(reading(white, slope=slope), None)
        assert says in found.autoregression.reason
        assert "autoregression" not in {one.topic for one in findings(found)}


def test_the_table_says_where_all_or_no_frequencies_are_above_the_noise():
    steep = measure(reading(lambda f: 0.4 * f**-2, slope=fitted(2.0)), None).autoregression
    flat = measure(reading(lambda f: 60 * f**-0.9, slope=fitted(0.9)), None).autoregression
    made = table({"steep": steep, "flat": flat, "none": Reason(reason="too few cells")})
    assert made.columns[1:5] == ("f* at t=0.8", "f* at t=0.6", "f* at t=0.4", "f* at t=0.2")
    assert made.rows[0] == ("steep", "none", "none", "0.949", "2.53", "2.00", "0.00", "2.00", "2.00")
    assert made.rows[1][4] == "all"
    assert "SNR exceeds 1" in made.note and "none: too few cells" in made.note
    assert table({"none": Reason(reason="too few cells")}) is None
