import os

import pytest
import torch

from smtool.devices import (
    ReadLater,
    exact_convolutions,
    gpu_algorithms,
    image_layout,
    meta_as_cpu,
    one_thread,
    peak_memory_mb,
    to_device,
)  # fmt: skip


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


def _algorithms() -> tuple[bool, bool, bool]:
    return (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)


@pytest.mark.parametrize(
    ("deterministic", "same_shapes", "expected"),
    [(False, True, (False, True, False)), (False, False, (False, False, False)), (True, True, (True, False, True))],
)
def test_the_algorithms_of_a_gpu_are_chosen_in_the_block_and_restored(monkeypatch, deterministic, same_shapes, expected):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    before = _algorithms()
    with pytest.raises(KeyError), gpu_algorithms("cuda:1", deterministic=deterministic, same_shapes=same_shapes):
        assert _algorithms() == expected
        raise KeyError
    assert _algorithms() == before


def test_deterministic_algorithms_have_the_workspace_that_cublas_needs(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")      # so that it is restored
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with gpu_algorithms("cuda", deterministic=True, same_shapes=True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_cpu_keeps_its_algorithms():
    before = _algorithms()
    with gpu_algorithms("cpu", deterministic=True, same_shapes=True):
        assert _algorithms() == before


def test_a_tensor_of_the_host_is_read_later_as_it_is():
    assert torch.equal(ReadLater(torch.arange(3)).value, torch.arange(3))


def test_images_are_channels_last_on_a_gpu_and_on_a_cpu_if_they_are_large():
    layouts = {(device, side): image_layout(device, (side, side)) for device in ("cpu", "cuda", "meta") for side in (64, 256)}
    assert [key for key, layout in layouts.items() if layout == torch.contiguous_format] == [("cpu", 64)]
    with meta_as_cpu():
        assert image_layout("meta", (64, 64)) == torch.contiguous_format
