"""The fused GroupNorm with SiLU against PyTorch's functions, and its Triton kernels in Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from smtool.devices import exact_convolutions, meta_as_cpu
from smtool.networks import norm_silu as fused
from smtool.networks.layers import ResnetBlock
from smtool.networks.norm_silu import norm_only, norm_silu
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import generator, initializing


def _inputs(*shape: int, groups: int, dtype=torch.float64) -> tuple[torch.Tensor, nn.GroupNorm]:
    """Images of mean 5, and a norm whose weights are not 1 and 0."""
    x = (5 + 2 * torch.randn(shape, generator=generator("x"), dtype=torch.float64)).to(dtype)
    norm = nn.GroupNorm(groups, shape[1], eps=1e-6, dtype=torch.promote_types(dtype, torch.float32))
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 0.5, generator=generator("norm"))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_(), norm


def _fuse(norm: nn.GroupNorm, x: torch.Tensor, silu: bool) -> torch.Tensor:
    return fused._Fused.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)


@pytest.mark.parametrize("silu", [True, False])
def test_values_and_all_gradients_equal_those_of_pytorch_in_float64(silu):
    x, norm = _inputs(3, 6, 5, 4, groups=3)
    found, expected = _fuse(norm, x, silu), F.silu(norm(x)) if silu else norm(x)
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.is_contiguous(memory_format=torch.channels_last)
    pull = torch.randn(found.shape, generator=generator("pull"), dtype=torch.float64)      # not in channels_last
    weights = (x, norm.weight, norm.bias)
    for one, wanted in zip(torch.autograd.grad(found, weights, pull), torch.autograd.grad(expected, weights, pull), strict=True):
        assert_close(one, wanted, rtol=1e-10, atol=1e-11)


def test_bf16_is_computed_in_float32_and_rounded_once():
    x, norm = _inputs(2, 8, 6, 6, groups=4, dtype=torch.bfloat16)
    found, expected = _fuse(norm, x, True), F.silu(norm(x.float()))
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), expected, rtol=2**-8, atol=1e-6)
    (one,), (wanted,) = torch.autograd.grad(found.sum(), x), torch.autograd.grad(expected.sum(), x)
    assert one.dtype == torch.bfloat16
    assert_close(one.float(), wanted.float(), rtol=2**-6, atol=0.01)


def test_on_a_cpu_pytorchs_own_functions_run():
    x, norm = _inputs(2, 8, 6, 6, groups=4, dtype=torch.float32)
    assert torch.equal(norm_silu(norm, x), F.silu(norm(x)))
    assert norm_silu(norm, x).grad_fn.name() == "SiluBackward0"
    assert norm_only(norm, x).grad_fn.name() == "NativeGroupNormBackward0"


def test_only_the_input_is_stored_for_the_backward_pass():
    x, norm = _inputs(2, 32, 32, 32, groups=4, dtype=torch.bfloat16)
    stored = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _fuse(norm, x, True)
    assert sum(stored.values()) == 2 * x.numel() + 4 * (2 * 32 + 2 * 2 * 4)      # x; weight and bias; mean and rstd of groups


def test_meta_tensors_are_those_of_a_gpu_unless_told_otherwise():
    x, norm = _inputs(2, 8, 6, 6, groups=4, dtype=torch.bfloat16)
    x, norm = x.to("meta"), norm.to("meta", torch.bfloat16)
    assert norm_silu(norm, x).grad_fn.name() == "_FusedBackward"
    with meta_as_cpu():
        assert norm_silu(norm, x).grad_fn.name() == "SiluBackward0"


def test_a_norm_with_a_hook_is_called():
    """Such as that of `LargestActivation`."""
    x, norm = _inputs(1, 4, 2, 2, groups=2, dtype=torch.float32)
    seen = []
    norm.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    norm_silu(norm.to("meta"), x.to("meta"))
    assert seen == [(1, 4, 2, 2)]


def test_a_block_with_fused_norms_equals_the_plain_one(monkeypatch):
    with initializing("block"):
        block = ResnetBlock(8, 4, groups=2).double()
    x, _ = _inputs(2, 8, 5, 5, groups=1)
    results = []
    for fuses in (False, True):
        monkeypatch.setattr(fused, "_can_fuse", lambda norm, x, fuses=fuses: fuses)
        value = block(x)
        results.append([value, *torch.autograd.grad(value.square().sum(), [x, *block.parameters()])])
    for one, wanted in zip(*results, strict=True):
        assert_close(one, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("silu", [True, False])
def test_shapes_dtypes_and_layouts_without_values_are_those_with_values(silu):
    x, norm = _inputs(2, 8, 3, 3, groups=4, dtype=torch.bfloat16)
    x, weights = x.detach(), (norm.weight.detach(), norm.bias.detach())
    mean, rstd = fused.moments(x, 4, 1e-6)
    terms = (mean, rstd, *weights)
    for operation, inputs in (
        (fused.moments, (x, 4, 1e-6)),
        (fused.apply, (x, *terms, silu)),
        (fused.sums, (x, x, *terms, silu)),
        (fused.of_input, (x, x, *terms, mean, rstd, silu)),
    ):
        torch.library.opcheck(operation, inputs, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_all_norms_of_an_autoencoder_are_fused_and_gradients_are_those_of_a_cpu(monkeypatch):
    """Small numbers of channels, and TF32 off: float32 differs by rounding only."""
    with initializing("on a gpu"):
        network = SDVAE(downsample=4, latent_channels=4, channels=(8, 16, 16), norm_groups=4, blocks_per_level=1).build()
    images = torch.rand(2, 3, 32, 32, generator=generator("images")).contiguous(memory_format=torch.channels_last) * 2 - 1

    def gradients(device: str) -> list[torch.Tensor]:
        network.to(device).to(memory_format=torch.channels_last).zero_grad()
        found = network.decode(network.encode(images.to(device)).mean)
        (found - images.to(device)).square().mean().backward()
        return [found.detach().cpu(), *(parameter.grad.cpu() for parameter in network.parameters() if parameter.grad is not None)]

    expected = gradients("cpu")
    monkeypatch.setattr(nn.GroupNorm, "forward", None)
    with exact_convolutions():
        found = gradients("cuda")
    assert_close(found[0], expected[0], rtol=1e-3, atol=1e-4)
    one, wanted = (torch.cat([value.flatten() for value in values[1:]]) for values in (found, expected))      # some are 0
    assert (one - wanted).norm() < 1e-3 * wanted.norm()


KERNELS = """
import torch
from torch.testing import assert_close
from smtool.features import lpips_head, lpips_head_kernels
from smtool.networks import norm_silu, norm_silu_kernels as kernels

generator = torch.Generator().manual_seed(0)
kernels._ELEMENTS, kernels._PROGRAMS = 64, 2      # several tiles in a program, and several programs for an image
chunks = set()
for shape, groups, dtype, silu in [
    ((2, 8, 6, 7), 4, torch.float32, True), ((1, 12, 3, 3), 3, torch.float32, False), ((2, 16, 9, 5), 2, torch.bfloat16, True),
]:
    x, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
    x, gradient = (y.to(dtype).contiguous(memory_format=torch.channels_last) for y in (3 * x + 50, gradient))
    weight, bias = (torch.randn(shape[1], generator=generator) for _ in range(2))
    grid, sizes = kernels.launch_sizes(x)
    chunks.add((grid[1] > 1, sizes["CHUNK"] > sizes["TILE"]))
    rounding = {"rtol": 2**-8, "atol": 2**-6} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 2e-5}
    close = {"rtol": 1e-4, "atol": 1e-4}
    moments = [y.float() for y in norm_silu.moments(x.double(), groups, 1e-6)]
    for one, wanted in zip(kernels.moments(x, groups, 1e-6), moments):
        assert_close(one, wanted, rtol=1e-5, atol=0)
    terms = (*moments, weight, bias)
    assert_close(kernels.apply(x, *terms, silu), norm_silu.apply(x, *terms, silu), **rounding)
    sums = norm_silu.sums(gradient, x, *terms, silu)
    for one, wanted in zip(kernels.sums(gradient, x, *terms, silu), sums):
        assert_close(one, wanted, **close)
    means = [(weight * one).unflatten(1, (groups, -1)).sum(2) / x[0].numel() * groups for one in sums]
    found, wanted = (room.of_input(gradient, x, *terms, *means, silu) for room in (kernels, norm_silu))
    assert_close(found, wanted, **rounding)
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    x[0, :, 0, 0] = 0
    pull = torch.randn(2, generator=generator)[: len(x)]
    ours, plain = (room.distance(x, gradient, weight, *eps) for room, eps in ((lpips_head_kernels, (1e-10,)), (lpips_head, ())))
    assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    found, wanted = lpips_head_kernels.gradient(pull, x, gradient, weight, 1e-10), lpips_head.gradient(pull, x, gradient, weight)
    assert_close(found, wanted, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-7)
    assert found.dtype == dtype and found.any() and not found[0, :, 0, 0].any()
assert (True, True) in chunks, chunks
"""


@pytest.mark.slow
def test_triton_kernels_equal_the_plain_operations():
    """In a process of its own, because Triton chooses its interpreter when imported. Images of mean 50 test cancellation."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", KERNELS], capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
