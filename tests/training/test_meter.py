import pytest
import torch

from smtool.training.loop import StepReport
from smtool.training.meter import Meter


def _report(step: int, **values: float) -> StepReport:
    tensors = {name: torch.tensor(value) for name, value in values.items()}
    return StepReport(step, tensors, {"autoencoder": 1e-3}, num_images=8, seconds=0.5, seconds_waiting=0.1)


def test_a_row_is_the_mean_over_the_steps_that_had_each_value():
    """With alternating players, the values of a single step belong to one player only."""
    meter = Meter()
    for report in (_report(1, l1=1.0), _report(2, discriminator=5.0), _report(3, l1=2.0), _report(4, discriminator=7.0)):
        meter.add(report)
    assert meter.losses() == {"l1": 1.5, "discriminator": 6.0}


def test_speeds_are_totals_over_the_interval():
    meter = Meter()
    meter.add(_report(1, l1=1.0))
    meter.add(_report(2, l1=1.0))
    assert meter.speeds() == pytest.approx({"lr_autoencoder": 1e-3, "images_per_second": 16.0, "waiting_share": 0.2})


def test_the_time_for_which_losses_waits_for_the_device_counts(monkeypatch):
    """Steps are queued on a GPU faster than it computes them; reading their losses waits for it."""
    meter = Meter()
    meter.add(_report(1, l1=1.0))
    monkeypatch.setattr("time.perf_counter", iter([10.0, 11.5]).__next__)
    meter.losses()
    assert meter.speeds()["images_per_second"] == pytest.approx(8 / 2.0)


def test_a_value_that_is_not_finite_in_one_step_is_not_finite_in_the_row():
    meter = Meter()
    meter.add(_report(1, l1=float("nan")))
    meter.add(_report(2, l1=1.0))
    assert not torch.isfinite(torch.tensor(meter.losses()["l1"]))


def test_clear_starts_a_new_row():
    meter = Meter()
    meter.add(_report(1, l1=1.0))
    meter.clear()
    assert meter.losses() == {}
