import json

import pytest
import torch
from torch import nn

from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.teacher_precision import SOURCE, set_precision, teacher_precision
from smtool.features.encoder import load_encoder
from smtool.features.teachers import Teacher
from smtool.features.trunk import load_trunk
from smtool.features.weights import random_weights
from smtool.networks.sd_vae import SDVAE
from smtool.recipe import TrainDiT
from smtool.regularizers.stay import OriginalEncoder


def _tables(asked: str = "auto", precision: str = "bf16") -> TrainDiT:
    return TrainDiT.model_validate({
        "steps": 1, "data": {"batch": 1}, "latents": {"autoencoder": "none"}, "optimizer": {}, "precision": precision,
        "teacher_precision": asked, "model": {"kind": "sit", "size": "custom", "depth": 1, "width": 8, "heads": 2, "patch": 1},
    })


def _teacher() -> Teacher:
    pool = nn.AvgPool2d(2)
    return Teacher(pool, name="pool", digest="", size=(4, 4), mean=(0.5,) * 3, std=(1.0,) * 3, features=lambda net, x: net(x))


@pytest.mark.parametrize(
    ("asked", "precision", "device", "recorded", "expected"),
    [
        ("auto", "fp32", "cuda", None, "fp32"),
        ("auto", "bf16", "cpu", None, "fp32"),
        ("auto", "bf16", "cuda", None, "bf16"),
        ("auto", "fp16", "cuda:1", None, "bf16"),
        ("auto", "bf16", "cuda", "fp32", "fp32"),      # a run keeps what it began with
        ("auto", "bf16", "cpu", "bf16", "bf16"),
        ("fp32", "bf16", "cuda", "bf16", "fp32"),
        ("bf16", "fp32", "cpu", None, "bf16"),
    ],
)
def test_teachers_follow_mixed_precision_on_a_gpu(monkeypatch, asked, precision, device, recorded, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert teacher_precision(_tables(asked, precision), device, recorded) == expected


def test_a_gpu_that_only_emulates_bf16_computes_teachers_in_fp32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert teacher_precision(_tables(), "cuda") == "fp32"


def test_encoders_and_trunks_that_are_frozen_follow_too(tmp_path):
    """The encoder of an RAE, the DINO of a discriminator and the original of `stay`, wherever they are inside."""
    with random_weights():
        trunk = load_trunk("vit_tiny_patch16_224")
    original = OriginalEncoder(SDVAE(channels=(8, 8), downsample=2, norm_groups=4).build())
    frozen = [_teacher(), load_encoder("random"), trunk, original]
    found = set_precision(_tables("bf16"), [nn.Sequential(nn.Sequential(*frozen))], RunFolder(tmp_path), "cpu")
    assert [one.precision for one in frozen] == ["bf16"] * 4 and found.sources == {SOURCE: "bf16"}


def test_a_run_of_a_version_without_the_key_resumes_in_fp32_and_a_newer_one_as_recorded(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    folder, teacher = RunFolder(tmp_path), _teacher()
    started = set_precision(_tables(), [None, nn.Sequential(teacher)], folder, "cuda")
    assert (teacher.precision, started.sources, started.lines) == ("bf16", {SOURCE: "bf16"}, ("teacher pool computes in bf16",))
    (folder.checkpoints / "00000001").mkdir(parents=True)
    (folder.checkpoints / "00000001" / "state.json").write_text("{}")
    for sources, expected in (({}, "fp32"), (started.sources, "bf16")):
        (folder.path / "environment.json").write_text(json.dumps({"sources": sources}))
        assert set_precision(_tables(), [teacher], folder, "cuda").sources == {SOURCE: expected}
        assert teacher.precision == expected


def test_a_key_without_a_teacher_is_said_to_have_no_effect(tmp_path):
    assert "no effect" in set_precision(_tables("bf16"), [nn.Linear(1, 1)], RunFolder(tmp_path), "cpu").lines[0]
    nothing = set_precision(_tables(), [None], RunFolder(tmp_path), "cpu")
    assert (nothing.sources, nothing.lines) == ({}, ())
