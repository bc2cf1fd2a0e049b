import importlib.util
import json
import math

import pytest
import torch
from PIL import Image

from smtool.errors import DiskError, RecipeError
from smtool.report.trackers import Trackers, drop_rows_after, metrics_row, read_metrics


def test_rows_hold_the_step_and_the_values(tmp_path):
    with Trackers(tmp_path, tensorboard=False) as trackers:
        trackers.log(10, {"loss": 0.25, "validation/psnr": 24.5})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 10, "loss": 0.25, "validation/psnr": 24.5}\n'


def test_nan_and_infinity_are_null_and_listed(tmp_path):
    with Trackers(tmp_path, tensorboard=False) as trackers:
        trackers.log(1, {"loss": math.nan, "grad": math.inf, "fine": 1.0})
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert row == {"step": 1, "loss": None, "grad": None, "fine": 1.0, "not_finite": {"loss": "nan", "grad": "inf"}}


def test_a_row_can_be_read_before_the_run_ends(tmp_path):
    with Trackers(tmp_path, tensorboard=False) as trackers:
        trackers.log(1, {"loss": 1.0})
        assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.0}]


def test_a_resumed_run_logs_no_step_twice(tmp_path):
    with Trackers(tmp_path, tensorboard=False) as trackers:
        for step in range(1, 8):
            trackers.log(step, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')      # killed in the middle of a row
    with Trackers(tmp_path, tensorboard=False, resume_step=5) as trackers:
        for step in range(6, 10):
            trackers.log(step, {"loss": float(step)})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 10))


def test_step_0_removes_every_row_including_that_of_step_0(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "psnr": 5.0}\n{"step": 1, "loss": 2.0}\n')
    drop_rows_after(path, 0)
    assert path.read_text() == ""


def test_pictures_are_png_files_in_samples(tmp_path):
    picture = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with Trackers(tmp_path, tensorboard=False) as trackers:
        path = trackers.image(250, "validation/grid", picture)
    assert path == tmp_path / "samples" / "00000250-validation-grid.png"
    read = torch.tensor(list(Image.open(path).convert("RGB").tobytes())).view(5, 7, 3).permute(2, 0, 1)
    assert torch.equal(read, picture.long())


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is optional")
def test_tensorboard_gets_scalars_and_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Trackers(tmp_path, tensorboard=True) as trackers:
        trackers.log(3, {"loss": 0.5})
        trackers.image(3, "grid", torch.zeros(3, 4, 4, dtype=torch.uint8))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.5)]
    assert events.Tags()["images"] == ["grid"]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="W&B is installed here")
def test_a_missing_tracker_is_an_error_that_says_how_to_install_it(tmp_path):
    with pytest.raises(RecipeError, match=r"not installed[\s\S]*pip install 'smtool\[wandb\]'"):
        Trackers(tmp_path, tensorboard=False, wandb="latents")


def test_a_full_disk_is_an_error_of_one_sentence(tmp_path):
    trackers = Trackers(tmp_path, tensorboard=False)
    trackers._rows = open("/dev/full", "w", buffering=1)      # noqa: SIM115
    with pytest.raises(DiskError, match=r"metrics\.jsonl: could not be written \(No space left on device\)"):
        trackers.log(1, {"loss": 1.0})
    with pytest.raises(OSError):
        trackers._rows.close()


@pytest.mark.parametrize(
    "line",
    [b"[]", b"3", b'{"loss": 1.0}', b'{"step": true}', b'{"step": "2"}', b'{"step": 2, "loss": {}}',
     b'{"step": 2, "loss": NaN}', b"\xff\xfe", b'{"step": 2, "loss": "1"}', b"[" * 5000],
)  # fmt: skip
def test_rows_end_at_the_first_one_of_another_form(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = [metrics_row(step, {"loss": 1.0 / step}).encode() for step in (1, 2, 3)]
    path.write_bytes(b"\n".join([good[0], line, *good[1:]]) + b"\n")
    assert [row["step"] for row in read_metrics(path)] == [1]
    drop_rows_after(path, 3)
    assert path.read_bytes() == good[0] + b"\n"
