import pytest
import torch

from smtool.diffusion import Sampler
from smtool.inference.diffusion_model import read_diffusion
from smtool.inference.generate import generate
from smtool.inference.precision import stated_precision, with_precision


@pytest.mark.parametrize(
    ("asked", "trained", "device", "native", "expected"),
    [
        ("auto", "bf16", "cuda", True, "bf16"),
        ("auto", "fp16", "cuda:1", False, "fp16"),
        ("auto", "fp32", "cuda", True, "fp32"),
        ("auto", "bf16", "cuda", False, "fp32"),      # an old GPU that would emulate it
        ("auto", "bf16", "cpu", True, "fp32"),
        ("fp32", "bf16", "cuda", True, "fp32"),
        ("bf16", "fp32", "cpu", False, "bf16"),
    ],
)
def test_auto_is_the_precision_of_training_on_a_gpu(monkeypatch, asked, trained, device, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert stated_precision(Sampler(precision=asked), trained, device) == expected


def test_samples_on_a_cpu_are_fp32_unless_another_precision_is_asked_for(finished):
    model = read_diffusion(finished / "ckpt.safetensors")
    torch.manual_seed(0)
    for parameter in model.network.parameters():
        parameter.add_(torch.randn(parameter.shape), alpha=0.05)

    def drawn(precision):
        sampler = Sampler(kind="euler", steps=3, cfg_scale=1.5, precision=precision)
        ((_, images),) = generate(model, range(4), seed=0, sampler=sampler, labels=[0, 1, 2, 0], batch=4)
        return images.float()

    assert with_precision(Sampler(), model, "cpu").precision == "fp32"
    assert torch.equal(drawn("auto"), drawn("fp32"))
    assert 0 < (drawn("bf16") - drawn("fp32")).abs().max() < 16
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
