import numpy as np
import pytest
import scipy.fft
import torch
from torch.testing import assert_close

from smtool.spectrum import dct2, dct_matrix, idct2


@pytest.mark.parametrize("shape", [(8, 8), (2, 3, 16, 24), (5, 7), (1, 1, 1, 1), (3, 256, 8)])
def test_dct2_and_idct2_equal_scipy(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = rng.standard_normal(shape)
    forward, backward = dct2(torch.from_numpy(x)).numpy(), idct2(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(forward, scipy.fft.dctn(x, axes=(-2, -1), norm="ortho"), rtol=0, atol=1e-12)
    np.testing.assert_allclose(backward, scipy.fft.idctn(x, axes=(-2, -1), norm="ortho"), rtol=0, atol=1e-12)


def test_transform_keeps_energy_and_comes_back() -> None:
    x = torch.randn(2, 3, 12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_close(dct2(x).square().sum(), x.square().sum(), rtol=1e-13, atol=0)
    assert_close(idct2(dct2(x)), x, rtol=0, atol=1e-13)


def test_gradient_is_the_inverse_transform() -> None:
    weight = torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.zeros(2, 6, 9, dtype=torch.float64, requires_grad=True)
    (dct2(x) * weight).sum().backward()
    assert_close(x.grad, idct2(weight).expand(2, 6, 9), rtol=0, atol=1e-13)


def test_autocast_does_not_coarsen_the_transform() -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = dct2(x)
    assert found.dtype == torch.float32
    assert_close(found.double(), dct2(x.double()), rtol=0, atol=1e-5)  # bfloat16 would be off by 1e-2


def test_half_precision_is_widened() -> None:
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert dct2(x).dtype == torch.float32
    assert_close(dct2(x).double(), dct2(x.double()), rtol=0, atol=1e-5)


def test_a_matrix_first_used_in_inference_mode_serves_training() -> None:
    with torch.inference_mode():
        dct2(torch.randn(11, 13))
    x = torch.randn(11, 13, requires_grad=True)
    dct2(x).square().sum().backward()
    assert_close(x.grad, 2 * x.detach(), rtol=0, atol=1e-5)


def test_matrices_are_cached_by_dtype_and_device() -> None:
    single, double = dct_matrix(10, dtype=torch.float32), dct_matrix(10, dtype=torch.float64)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert dct_matrix(10, dtype=torch.float32, device="meta").device.type == "meta"
    assert dct_matrix(10, dtype=torch.float32).device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_follows_cpu() -> None:
    x = torch.randn(2, 3, 32, 24)
    assert_close(dct2(x.cuda()).cpu(), dct2(x), rtol=0, atol=1e-5)
