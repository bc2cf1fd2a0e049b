import json

import pytest
import torch

from smtool.commands.train.lpips_precision import SOURCE, set_lpips_precision
from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.teacher_precision import resolved
from smtool.devices import meta_as_cpu
from smtool.features.perceptual import Perceptual
from smtool.features.weights import without_weights
from smtool.recipe import TrainAE


def _tables(precision: str = "bf16", asked: str = "auto") -> TrainAE:
    return TrainAE.model_validate({
        "steps": 1, "precision": precision, "data": {"train": "none", "image_size": 32, "batch": 1}, "optimizer": {},
        "model": {"downsample": 2, "channels": [4, 4], "norm_groups": 2}, "perceptual": {"net": "squeeze", "precision": asked},
    })


@pytest.fixture
def distance():
    with without_weights():
        return Perceptual(net="squeeze").build()


def test_a_new_run_on_a_gpu_uses_bf16_and_an_older_run_resumes_in_fp32(monkeypatch, tmp_path, distance):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    tables, folder = _tables(), RunFolder(tmp_path)
    started = set_lpips_precision(tables, tables.perceptual, (distance, 1.0), folder, "cuda")
    assert (distance.precision, started.sources) == ("bf16", {SOURCE: "bf16"})
    assert started.lines == ("lpips_squeeze computes its trunk in bf16",)
    (folder.checkpoints / "00000001").mkdir(parents=True)
    (folder.checkpoints / "00000001" / "state.json").write_text("{}")
    (folder.path / "environment.json").write_text(json.dumps({"sources": {}}))
    assert set_lpips_precision(tables, tables.perceptual, (distance, 1.0), folder, "cuda").sources == {SOURCE: "fp32"}
    assert distance.precision == "fp32"


def test_on_a_cpu_and_without_lpips_nothing_changes(tmp_path, distance):
    tables = _tables()
    assert set_lpips_precision(tables, tables.perceptual, (distance, 1.0), RunFolder(tmp_path), "cpu").lines == ()
    assert distance.precision == "fp32"
    assert set_lpips_precision(tables, None, None, RunFolder(tmp_path), "cuda").sources == {}


def test_a_prediction_for_a_cpu_counts_fp32_and_one_for_a_gpu_bf16():
    assert resolved("auto", "bf16", "meta", None) == "bf16"
    with meta_as_cpu():
        assert resolved("auto", "bf16", "meta", None) == "fp32"


def test_bf16_without_mixed_precision_is_a_problem_of_the_recipe():
    assert list(_tables("fp32", "bf16").problems()) == [
        ("perceptual.precision", 'cannot be "bf16" with precision = "fp32"; use "auto", or precision = "bf16"')
    ]
    assert list(_tables("fp16", "bf16").problems()) == []
