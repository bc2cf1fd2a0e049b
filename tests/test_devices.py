import pytest
import torch

from smtool.devices import exact_convolutions, one_thread, peak_memory_mb, to_device


def test_a_tensor_already_on_the_device_is_not_copied():
    x = torch.arange(6)
    assert to_device(x, "cpu") is x
    assert to_device(x, torch.device("cpu")) is x
    assert to_device(x, "meta").shape == x.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("x", [torch.arange(6), torch.randn(4, 6).mT, torch.randn(3, dtype=torch.bfloat16)])
def test_a_tensor_moved_to_a_gpu_keeps_its_values(x):
    there = to_device(x, "cuda")
    assert (there.device.type, there.dtype, there.shape) == ("cuda", x.dtype, x.shape)
    assert torch.equal(there.cpu(), x)
    assert to_device(there, "cpu").device.type == "cpu"


def test_the_peak_of_a_process_is_at_least_its_current_memory():
    held = torch.ones(64 * 2**20 // 4)
    assert peak_memory_mb("cpu")["process"] >= 64
    assert held.sum() > 0


def test_the_block_runs_on_one_thread_and_the_number_is_restored():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("before", ["ieee", "tf32"])
def test_convolutions_are_exact_in_the_block_and_the_setting_is_restored(before):
    convolutions = torch.backends.cudnn.conv
    users = convolutions.fp32_precision
    try:
        convolutions.fp32_precision = before
        with pytest.raises(KeyError), exact_convolutions():
            assert convolutions.fp32_precision == "ieee"
            raise KeyError
        assert convolutions.fp32_precision == before
    finally:
        convolutions.fp32_precision = users
