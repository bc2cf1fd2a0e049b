import pytest
import torch

from smtool.devices import moved


def test_a_tensor_that_is_there_already_is_not_copied():
    x = torch.arange(6)
    assert moved(x, "cpu") is x
    assert moved(x, torch.device("cpu")) is x
    assert moved(x, "meta").shape == x.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("x", [torch.arange(6), torch.randn(4, 6).mT, torch.randn(3, dtype=torch.bfloat16)])
def test_what_goes_to_a_gpu_arrives_as_it_was(x):
    there = moved(x, "cuda")
    assert (there.device.type, there.dtype, there.shape) == ("cuda", x.dtype, x.shape)
    assert torch.equal(there.cpu(), x)
    assert moved(there, "cpu").device.type == "cpu"
