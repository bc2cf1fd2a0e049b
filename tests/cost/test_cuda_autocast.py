"""Dtypes against PyTorch's own CUDA autocast on fake CUDA tensors; attention; recomputed blocks."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from smtool.cost.counting import counting
from smtool.cost.cuda_autocast import cuda_autocast
from smtool.networks.recompute import recompute_activations
from smtool.networks.sit import SiT
from smtool.spectrum import dct2

FUNCTIONS = {
    "conv2d": lambda x, h: F.conv2d(x, x[:, :, :3, :3]),
    "linear": lambda x, h: F.linear(x, x[0, 0]),
    "matmul": lambda x, h: x @ x,
    "half matmul": lambda x, h: h @ h,
    "einsum": lambda x, h: torch.einsum("bchw,bcvw->bchv", x, x),
    "group_norm": lambda x, h: F.group_norm(h, 2),
    "layer_norm": lambda x, h: F.layer_norm(h, h.shape[-1:]),
    "instance_norm": lambda x, h: F.instance_norm(h),
    "softmax": lambda x, h: F.softmax(h, -1),
    "silu": lambda x, h: F.silu(h),
    "gelu": lambda x, h: F.gelu(h),
    "interpolate": lambda x, h: F.interpolate(h, scale_factor=2.0, mode="nearest"),
    "bicubic": lambda x, h: F.interpolate(h, (4, 4), mode="bicubic", antialias=True),
    "mse": lambda x, h: F.mse_loss(h, h),
    "l1": lambda x, h: F.l1_loss(h, h),
    "cosine": lambda x, h: F.cosine_similarity(h, h, dim=1),
    "normalize": lambda x, h: F.normalize(h, dim=1),
    "sum": lambda x, h: h.sum(),
    "mean": lambda x, h: h.mean(),
    "norm": lambda x, h: torch.linalg.vector_norm(h),
    "exp": lambda x, h: h.exp(),
    "pow": lambda x, h: h**2,
    "square": lambda x, h: h.square(),
    "rsqrt": lambda x, h: h.rsqrt(),
    "sqrt": lambda x, h: h.sqrt(),
    "abs": lambda x, h: h.abs(),
    "cat": lambda x, h: torch.cat([x, h]),
    "stack": lambda x, h: torch.stack([h, h]),
    "add": lambda x, h: x + h,
    "scale": lambda x, h: h * 2,
    "max_pool2d": lambda x, h: F.max_pool2d(h, 2),
    "pad": lambda x, h: F.pad(h, (1, 1, 1, 1), mode="reflect"),
    "batch_norm": lambda x, h: F.batch_norm(h, None, None, training=True),
    "logsumexp": lambda x, h: torch.logsumexp(h, 1),
    "cumsum": lambda x, h: torch.cumsum(h, 1),
    "dct": lambda x, h: dct2(h),
}


def outputs_of(device: str) -> dict[str, torch.dtype]:
    x = torch.empty(2, 4, 8, 8, device=device)
    h = x.to(torch.bfloat16)
    return {name: function(x, h).dtype for name, function in FUNCTIONS.items()}


def test_dtypes_are_those_of_cuda_autocast():
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)      # torch.autocast("cuda") would refuse without a GPU
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            expected = outputs_of("cuda")
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
    with cuda_autocast(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = outputs_of("meta")
    assert found == expected
    assert {torch.float32, torch.bfloat16} == set(found.values())


def test_without_autocast_nothing_is_cast_and_frozen_blocks_switch_it_off():
    x = torch.empty(3, 3, device="meta")
    with cuda_autocast():
        assert (x @ x).dtype == torch.float32
        with torch.autocast("cpu", dtype=torch.float16):
            assert (x @ x).dtype == torch.float16
            with torch.autocast("meta", enabled=False):      # as frozen networks do
                assert (x @ x).dtype == torch.float32
    with pytest.raises(RuntimeError):      # outside, PyTorch refuses the device
        torch.autocast("meta", enabled=False)


def test_a_trained_weight_is_cast_once_a_pass_and_a_frozen_one_each_time():
    x = torch.empty(2, 8, device="meta", dtype=torch.bfloat16)
    for trained, casts in ((True, 1), (False, 3)):
        weight = torch.nn.Parameter(torch.empty(8, 8, device="meta"), requires_grad=trained)
        with cuda_autocast(), torch.autocast("cpu", dtype=torch.bfloat16), counting() as count:
            for _ in range(3):
                F.linear(x, weight)
        assert sum(kernel.bytes == 64 * (4 + 2) for kernel in count.kernels) == casts


def test_attention_stores_no_square_of_the_tokens():
    for dtype in (torch.float32, torch.bfloat16):
        query = torch.empty(1, 2, 1024, 32, device="meta", dtype=dtype, requires_grad=True)
        with cuda_autocast(), counting() as count:
            F.scaled_dot_product_attention(query, query, query).sum().backward()
        assert count.peak_bytes < 1024 * 1024 * 2
        assert count.flops == (2 + 5) * 2 * 2 * 1024 * 1024 * 32      # forward, and backward with scores computed again


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_recomputed_blocks_cost_another_forward_pass_and_store_less(precision):
    def step(recomputed):
        network = SiT(size="custom", depth=4, width=64, heads=2, patch=1).build((4, 8, 8), 0).to("meta")
        if recomputed:
            recompute_activations(network)
        x, t = torch.empty(4, 4, 8, 8, device="meta"), torch.empty(4, device="meta")
        with cuda_autocast(), counting(network) as count:
            with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
                value = network(x, t, None).output.square().mean()
            value.backward()
        return count

    plain, recomputed = step(False), step(True)
    assert 1.25 < recomputed.flops / plain.flops < 4 / 3
    assert recomputed.peak_bytes < plain.peak_bytes / 2
    assert set(recomputed.flops_by_unit()) == set(plain.flops_by_unit())
