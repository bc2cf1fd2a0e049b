import pytest

from smtool.diffusability.report import SCOPE, Measured, verdict
from smtool.diffusability.sections import flattening, health, noise_crossing, reference, transfer
from smtool.diffusability.sections.flattening import DELTA_TOLERANCE
from smtool.diffusability.sections.health import (
    GRID_PHASE,
    GRID_TEMPLATE,
    SHIFT_CELLS,
    SHIFT_LATENT,
    SHIFT_RECONSTRUCTION,
    Channel,
    EffectiveRank,
    Fp16,
    Grid,
    GridReading,
    Health,
    Shift,
)
from smtool.diffusability.sections.low_pass import Gap, LowPass
from smtool.diffusability.sections.noise_crossing import SMALLEST_GAIN, NoiseCrossing, SamplerGain, TimeShift
from smtool.diffusability.sections.parts import Reason, side
from smtool.diffusability.sections.physical import Decibel, Delta, PhysicalReading, Target
from smtool.diffusability.sections.reference import Divergence, Gains, ReferenceReading
from smtool.diffusability.sections.transfer import GAP_FOLLOWS, KAPPA_ALIGNED, KAPPA_CHANCE, Transfer

MISSING = Reason(reason="it was not measured")


def only(findings, topic):
    (found,) = [found for found in findings if found.topic == topic]
    return found


def flattened(*readings):
    return flattening.findings(readings)


def reading(value, half_width=0.05, *, posterior="sample", latents="normalized", residual_db=1.0, reason=None):
    delta = Reason(reason=reason) if reason else Delta.model_construct(
        value=value, half_width=half_width, residual_db=residual_db, is_power_law=residual_db <= 3.0
    )
    return PhysicalReading.model_construct(
        posterior=posterior, latents=latents, headline=posterior != "mean" and latents == "normalized", delta=delta,
        target=Target.model_construct(delta=1.0, divergence_db=Decibel(value=0.7)),
    )


@pytest.mark.parametrize(("value", "half_width", "tone", "says"), [
    (1.0, 0.4, "good", "Flattened as the target asks"),           # the interval ends where the tolerance does
    (1.0, 0.41, "note", "Flattening undecided"),
    (0.5, 0.09, "warn", "Not flattened enough"),
    (0.5, 0.11, "note", "Flattening undecided"),
    (0.1, 0.2, "warn", "Not flattened, a copy"),
    (-0.5, 0.2, "warn", "Steeper than the images"),
    (1.6, 0.1, "warn", "Flattened too much"),
    (1.0, None, "note", "Flattening undecided"),
])
def test_flattening_is_judged_by_the_whole_interval(value, half_width, tone, says):
    assert DELTA_TOLERANCE == 0.4
    found = only(flattened(reading(value, half_width)), "flattening")
    assert found.tone == tone
    assert found.sentence.startswith(says)
    assert f"{value:.2f}" in found.sentence
    assert found.numbers["delta"] == value
    assert found.numbers["half_width"] == half_width


@pytest.mark.parametrize(("residual", "tone"), [(3.0, "good"), (3.1, "warn")])
def test_a_residual_above_3_db_is_no_power_law_whatever_delta_says(residual, tone):
    found = only(flattened(reading(1.0, residual_db=residual)), "flattening")
    assert found.tone == tone
    assert ("Not a power law" in found.sentence) == (tone == "warn")
    assert ("describes these latents poorly" in found.sentence) == (tone == "warn")


def test_a_missing_fit_is_reported_with_its_reason():
    found = only(flattened(reading(0, reason="4x4 cells hold too few rings")), "flattening")
    assert (found.tone, "4x4 cells hold too few rings" in found.sentence) == ("note", True)


@pytest.mark.parametrize(("mean", "said"), [(0.66, True), (0.91, True), (0.93, False)])
def test_a_delta_that_depends_on_the_posterior_is_reported(mean, said):
    """For a plain trained autoencoder, white noise of 0.3 std moved delta from 0.66 to 0.82 (spectrum.md#delta)."""
    entries = [reading(1.02), reading(mean, posterior="mean")]
    topics = [found.topic for found in flattened(*entries)]
    assert ("averaging" in topics) == said


def test_a_deterministic_encoder_is_judged_by_its_latents():
    entries = [reading(1.0, posterior="deterministic"), reading(0.6, posterior="deterministic", latents="raw")]
    assert only(flattened(*entries), "flattening").tone == "good"
    assert "0.60 on raw latents" in only(flattened(*entries), "averaging").sentence


def kl(raw, matched):
    raw, matched = (Divergence(value=value, half_width=0.01, delta=1.0) for value in (raw, matched))
    return reference.findings([ReferenceReading.model_construct(headline=True, divergence=Gains(raw=raw, match=matched))])


def test_a_released_kl_that_is_mostly_due_to_the_scale_is_reported():
    assert "from the scale of the latents" in only(kl(0.21, 0.1), "reference").sentence
    assert "from the scale of the latents" not in only(kl(0.20, 0.1), "reference").sentence


def responses(kappa, *, above=0.0, is_linear=True, answered=8):
    return Transfer.model_construct(
        kappa=kappa, above=above, is_linear=is_linear, self_check=0.07, answered=[band < answered for band in range(8)]
    )


def curve(gap, half_width=0.1, *, psnr=20.0, control=25.0):
    return LowPass.model_construct(
        rows_removed=list(range(15)), psnr=[psnr] * 15, control=[control] * 15,
        gap=Gap(value=[gap if n == 12 else 99.0 for n in range(15)], half_width=[half_width] * 15),
    )


def decoder(kappa, gap, half_width=0.1, *, psnr=20.0, control=25.0, **others):
    return transfer.findings(
        responses(kappa, **others), curve(gap, half_width, psnr=psnr, control=control), can_decode=True
    )


SMALL, LARGE = GAP_FOLLOWS - 0.5, GAP_FOLLOWS + 0.5


@pytest.mark.parametrize(("kappa", "gap", "tone", "says"), [
    (1.00, SMALL, "good", "Frequency-aligned:"),                  # ideal crop
    (0.93, SMALL, "good", "Frequency-aligned:"),                  # bilinear
    (KAPPA_ALIGNED + 0.02, SMALL, "good", "Frequency-aligned:"),
    (1.00, LARGE, "warn", "Not frequency-aligned:"),              # one number is not enough
    (0.01, SMALL, "warn", "Not frequency-aligned:"),              # nor is the other: space-to-depth
    (-0.04, LARGE, "warn", "Not frequency-aligned:"),             # scrambled
    (KAPPA_CHANCE + 0.02, SMALL, "note", "Partly frequency-aligned:"),
    (0.57, SMALL, "note", "Partly frequency-aligned:"),           # an autoencoder trained with DSM
    (0.65, 5.8, "warn", "Not frequency-aligned:"),                # a plain trained autoencoder
    (KAPPA_ALIGNED, SMALL, "note", "Frequency alignment undecided"),      # at the limit of kappa
    (1.00, GAP_FOLLOWS, "note", "Frequency alignment undecided"),
])
def test_frequency_aligned_needs_both_numbers(kappa, gap, tone, says):
    found = only(decoder(kappa, gap), "frequency-aligned")
    assert found.tone == tone
    assert found.sentence.startswith(says)
    assert f"{kappa:.2f}" in found.sentence
    assert f"{gap:.1f} ± 0.1 dB" in found.sentence


def test_alignment_is_undecided_for_a_gap_without_an_interval():
    assert only(decoder(1.0, 0.0, None), "frequency-aligned").tone == "note"


def test_a_lossless_decoder_that_beats_its_control_follows_whatever_its_gap():
    """The control `stretch`: 60 dB without a removal, 31.6 with one, 25.3 for the whole latent against the low-passed image."""
    lossless = decoder(1.0, 28.4, psnr=31.6, control=25.3)
    assert "the decoder follows when frequencies are removed" in only(lossless, "frequency-aligned").sentence
    assert "does not follow" in only(decoder(1.0, 28.4, psnr=25.3, control=25.3), "frequency-aligned").sentence


def test_one_number_alone_names_the_missing_one():
    half = transfer.findings(responses(1.0), Reason(reason="blocks do not fill a side"), can_decode=True)
    found = only(half, "frequency-aligned")
    assert (found.tone, "blocks do not fill a side" in found.sentence) == ("note", True)
    half = transfer.findings(Reason(reason="nothing answers"), curve(0.0), can_decode=True)
    assert "nothing answers" in only(half, "frequency-aligned").sentence


def test_an_encoder_without_decoder_gets_no_warning_about_alignment():
    found = transfer.findings(MISSING, MISSING, can_decode=False)
    assert [(one.topic, one.tone) for one in found] == [("frequency-aligned", "note")]


def test_other_problems_of_the_response_are_warnings():
    assert {one.topic for one in decoder(1.0, 0.0)} == {"frequency-aligned"}
    bad = decoder(0.01, 0.0, above=0.98, is_linear=False, answered=4)
    assert {one.topic for one in bad if one.tone == "warn"} == {
        "frequency-aligned", "linearity", "above Nyquist", "unanswered"
    }
    assert "4 of 8 latent bands have no effect on the image: 5, 6, 7, 8" in only(bad, "unanswered").sentence


def test_a_first_band_of_the_mean_alone_is_not_called_silent():
    mean_alone = responses(1.0).model_copy(update={"answered": [False] + [True] * 7})
    told = transfer.findings(mean_alone, curve(0.0), can_decode=True, cells=8)
    assert {one.topic for one in told} == {"frequency-aligned"}
    told = transfer.findings(mean_alone, curve(0.0), can_decode=True, cells=16)
    assert "1 of 8 latent bands have no effect on the image: 1." in only(told, "unanswered").sentence


def crossing(factor=1.0, shift=MISSING):
    gain = SamplerGain(sampler="euler-maruyama", steps=100, last_t=0.04, factor=[1.0, 1.0, factor], whole=[])
    return noise_crossing.findings(NoiseCrossing.model_construct(
        cycles_per_side=[1.0, 4.0, 8.0], crossing=[0.8, 0.5, 0.2], floor_share=[0.1, 0.3, 0.6], shift=shift, damping=[gain],
    ))


def test_the_noise_crossing_states_when_the_snr_of_bands_falls_below_1_and_where_the_floor_lies():
    found = only(crossing(), "noise")
    assert "the SNR falls below 1 at t = 0.20 for the highest frequencies and at t = 0.80 for the lowest" in found.sentence
    assert "60 % of the loss floor" in found.sentence


def test_no_time_shift_matches_where_the_rules_disagree():
    rules = {"reference": "sd", "by_cells": 0.56, "by_energy": 2.65, "spread": 3.0}
    assert "No time shift" in only(crossing(shift=TimeShift(**rules, cannot_change=True)), "shift").sentence
    found = only(crossing(shift=TimeShift(**rules | {"by_energy": 0.8}, cannot_change=False)), "shift")
    assert "No time shift" not in found.sentence and "0.56" in found.sentence and "sd" in found.sentence
    assert "shift" not in {one.topic for one in crossing(shift=Reason(reason="it is the reference"))}


def test_a_sampler_that_weakens_a_band_is_a_warning():
    """REPA's last step returns 0.61 of a band of variance 0.01 (released-code.md#euler-maruyama)."""
    found = only(crossing(0.61), "sampler")
    assert (found.tone, "61 %" in found.sentence, "8 cycles" in found.sentence) == ("warn", True, True)
    assert "sampler" not in {one.topic for one in crossing(SMALLEST_GAIN)}


@pytest.mark.parametrize(("entropy", "correlation", "tone", "says"), [
    (16.0, 16.0, "good", ""),                                     # white channels
    (12.0, 12.0, "note", ""),
    (8.0, 8.0, "warn", "channels are redundant"),                 # duplicated
    (8.1, 8.1, "note", ""),
    (8.0, 16.0, "warn", "larger variance than the rest, or some are dead"),      # half dead
    (2.1, 16.0, "warn", "larger variance than the rest, or some are dead"),      # one channel with ten times the std
])
def test_cases_of_known_rank_are_distinguished(entropy, correlation, tone, says):
    found = health.rank_finding(
        EffectiveRank.model_construct(num_channels=16, entropy=entropy, entropy_correlation=correlation)
    )
    assert found.tone == tone
    assert says in found.sentence


def test_dead_channels_are_named_by_number():
    channels = [Channel(mean=0.0, std=1.0, dead=dead, posterior_std=None) for dead in (False, True, True)]
    found = health.channels_finding(channels)
    assert (found.tone, "2 of 3" in found.sentence, found.sentence.endswith("2, 3.")) == ("warn", True, True)
    assert health.channels_finding(channels[:1]).tone == "good"


@pytest.mark.parametrize(("template", "phase", "tone"), [
    (GRID_TEMPLATE, GRID_PHASE, "good"), (-0.2, -0.3, "good"),
    (GRID_TEMPLATE + 0.001, 0.0, "warn"), (0.0, GRID_PHASE + 0.001, "warn"),
])
def test_a_grid_counts_only_beyond_the_inputs_own(template, phase, tone):
    readings = [GridReading(reconstruction=0.5, input=0.5 - excess, excess=excess) for excess in (template, phase)]
    assert health.grid_finding(Grid(period=8, images=4, template=readings[0], phase=readings[1])).tone == tone


@pytest.mark.parametrize(("errors", "tone", "says"), [
    ((0.003, 0.000, 0.008), "good", ""),                          # ideal crop
    ((0.016, 0.000, 0.060), "good", ""),                          # bilinear
    ((0.140, 0.000, 0.060), "warn", "part of a cell (0.14"),      # nearest
    ((0.000, 0.000, 0.550), "warn", "latents alias"),             # space-to-depth, which the first error calls perfect
    ((0.000, 1.170, 1.140), "warn", "shift by one cell (1.17"),         # stretch
    ((SHIFT_RECONSTRUCTION, SHIFT_CELLS, SHIFT_LATENT), "good", ""),
    ((None, None, 0.5), "warn", "latents alias"),                 # encode only
])
def test_controls_are_distinguished_by_their_shift_errors(errors, tone, says):
    reconstruction, whole_cell, latent = errors
    found = health.shift_finding(Shift(images=16, reconstruction=reconstruction, whole_cell=whole_cell, latent=latent))
    assert found.tone == tone
    assert says in found.sentence


def test_an_overflow_names_its_layer():
    fp16 = Fp16(largest_latent=1.0, largest_activation=7e4, layer="decoder.up.3", overflows=True)
    found = health.fp16_finding(fp16)
    assert (found.tone, "7e+04" in found.sentence, "decoder.up.3" in found.sentence) == ("warn", True, True)
    assert health.fp16_finding(fp16.model_copy(update={"overflows": False, "largest_activation": 30.0})).tone == "good"


def test_an_activation_that_is_not_finite_overflows():
    fp16 = Fp16(largest_latent=1.0, largest_activation=None, layer="mid", overflows=True)
    assert "not finite" in health.fp16_finding(fp16).sentence


def test_what_was_not_measured_is_not_mentioned():
    fp16 = Fp16(largest_latent=1.0, reason="no layer could be watched")
    checks = Health.model_construct(channels=[], effective_rank=MISSING, grid=MISSING, shift=MISSING, fp16=fp16)
    found = verdict(Measured.model_construct(
        physical=[], reference=[], transfer=MISSING, low_pass=MISSING, lens=MISSING, health=checks, can_decode=True,
        latent_size=(8, 8),
    ))
    assert [one.topic for one in found] == ["channels"]


def test_every_sentence_of_a_real_report_has_numbers(drawn):
    for autoencoder in drawn.report.autoencoders:
        assert autoencoder.verdict == verdict(autoencoder)
        topics = {found.topic for found in autoencoder.verdict}
        assert topics >= {"flattening", "frequency-aligned", "noise", "rank", "fp16"}
        for found in autoencoder.verdict:
            assert found.tone in ("good", "warn", "note")
            assert found.sentence.endswith(".")
            if "could not be measured" not in found.sentence:
                assert found.numbers


def test_no_report_claims_to_rank():
    assert "does not rank" in SCOPE and "smtool race" in SCOPE
    assert "-0.01" in SCOPE and "0.84" in SCOPE      # Spearman over 22 autoencoders: released-code.md#predictors


@pytest.mark.parametrize(("value", "half_width", "expected"), [
    (1.0, 0.5, "below"), (1.0, 0.6, "unknown"), (2.2, 0.6, "above"), (2.0, 0.5, "unknown"), (0.0, None, "unknown"),
])
def test_an_interval_is_on_a_side_only_as_a_whole(value, half_width, expected):
    assert side(value, half_width, 1.5) == expected
