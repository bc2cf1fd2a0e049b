"""Kernels are used only where a comparison with PyTorch's functions succeeds."""

import pytest
import torch

from smtool.features import lpips_head
from smtool.networks import norm_silu, operations
from smtool.networks.operations import kernels_agree

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def anew():
    operations._agree.cache_clear()
    yield
    operations._agree.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_operations_without_kernels_pass_the_comparison(dtype):
    assert norm_silu._agrees_with_pytorch(CPU, dtype)


@pytest.mark.parametrize("name", ["moments", "apply", "sums", "of_input"])
def test_each_wrong_kernel_is_noticed(name, monkeypatch):
    right = getattr(norm_silu, name)

    def wrong(*arguments):
        found = right(*arguments)
        return tuple(1.05 * x for x in found) if isinstance(found, tuple) else 1.05 * found

    monkeypatch.setattr(norm_silu, name, wrong)
    assert not norm_silu._agrees_with_pytorch(CPU, torch.bfloat16)


def test_the_heads_of_lpips_are_compared(monkeypatch):
    kernels = pytest.importorskip("smtool.features.lpips_head_kernels", exc_type=ImportError)
    monkeypatch.setattr(kernels, "distance", lambda a, b, weight, eps: lpips_head._plain_distance(a, b, weight))
    monkeypatch.setattr(kernels, "gradient", lambda pull, a, b, weight, eps: lpips_head._plain_gradient(pull, a, b, weight))
    assert lpips_head._agrees_with_pytorch(CPU, torch.bfloat16)
    monkeypatch.setattr(kernels, "gradient", lambda pull, a, b, weight, eps: torch.zeros_like(a))
    assert not lpips_head._agrees_with_pytorch(CPU, torch.bfloat16)


def test_a_difference_and_an_error_are_said_once():
    x, calls = torch.zeros(1, 1, 1, 1), []

    def check(device, dtype):
        calls.append(dtype)
        if dtype == torch.float16:
            raise RuntimeError("PassManager::run failed\nmore")
        return False

    with pytest.warns(UserWarning, match=r"kernels of a thing are not used on cpu for torch.float32: they differ from PyTorch"):
        assert not kernels_agree("a thing", check, x)
    assert not kernels_agree("a thing", check, x)
    with pytest.warns(UserWarning, match=r"torch.float16: RuntimeError: PassManager::run failed\."):
        assert not kernels_agree("a thing", check, x.half())
    assert calls == [torch.float32, torch.float16]


class WithoutValues(torch.Tensor):
    pass


def test_in_inference_mode_and_for_tensors_without_values():
    x = torch.zeros(1, 1, 1, 1)
    with torch.inference_mode():
        assert kernels_agree("GroupNorm with SiLU", norm_silu._agrees_with_pytorch, x)
    assert kernels_agree("nothing", lambda device, dtype: False, x.as_subclass(WithoutValues))
