"""Hand-made control autoencoders through the whole report: expected numbers (spectrum.md#band-transfer) and distinct verdicts."""

import pytest

from smtool.commands.prepare.images import prepare
from smtool.diffusability.report import Autoencoder
from smtool.diffusability.spectrum import spectrum
from smtool.report.console import Console

EXPECTED = {      # share, kappa, above, relative share, relative kappa
    "crop": (1.000, 1.00, 0.000, 0.125, 0.00),
    "stretch": (0.000, -0.02, 0.875, 1.000, 1.00),
    "scrambled": (0.092, -0.04, 0.000, 0.125, 0.00),
    "space-to-depth": (0.014, 0.01, 0.984, 0.126, 0.00),
    "bilinear": (0.94, 0.93, 0.06, 0.13, 0.00),
}


@pytest.fixture(scope="module")
def controls(tmp_path_factory) -> dict[str, Autoencoder]:
    folder = tmp_path_factory.mktemp("controls") / "photos"
    prepare("builtin:photos?train=4&val=4", out=folder, size=128, val_fraction=0.5, workers=1)
    what = [f"control:{name}" for name in EXPECTED]
    report = spectrum(what, data=str(folder), estimator="physical", console=Console(quiet=True))
    return {autoencoder.label: autoencoder for autoencoder in report.autoencoders}


@pytest.mark.parametrize("name", EXPECTED)
def test_band_transfer_of_the_controls_has_the_documented_values(name, controls):
    transfer = controls[name].transfer
    found = transfer.share, transfer.kappa, transfer.above, transfer.relative_share, transfer.relative_kappa
    assert found == pytest.approx(EXPECTED[name], abs=0.006)
    assert transfer.is_linear


def test_all_three_shift_errors_are_needed(controls):
    shifts = {name: control.health.shift for name, control in controls.items()}
    assert shifts["space-to-depth"].reconstruction == pytest.approx(0.0, abs=1e-6)
    assert shifts["space-to-depth"].latent > 0.2
    assert shifts["stretch"].whole_cell > 0.5
    assert max(shifts["crop"].reconstruction, shifts["crop"].whole_cell, shifts["crop"].latent) < 0.02


def test_verdicts_differ_as_the_controls_do(controls):
    warned = {
        name: {found.topic for found in control.verdict if found.tone == "warn"} for name, control in controls.items()
    }
    assert "frequency-aligned" not in warned["crop"]
    for name in ("stretch", "scrambled", "space-to-depth"):
        assert "frequency-aligned" in warned[name]
    assert "grid" in warned["bilinear"]
    assert len({frozenset(topics) for topics in warned.values()}) == len(EXPECTED)


def test_a_copy_of_the_images_spectrum_has_delta_0(controls):
    head = controls["crop"].physical[0]
    assert head.headline
    assert abs(head.delta.value) < 0.05
