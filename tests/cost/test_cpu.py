"""Rates from times that were made up, kernels at given rates, and the measurement of this machine."""

import pytest
import torch
from torch import nn

from smtool.cost import cpu as cpu_module
from smtool.cost.counting import Count, Kernel, counting
from smtool.cost.cpu import CPU, Rate, measure_cpu, two_rates
from smtool.cost.cpu_probes import forget_operands, operands

FP32 = torch.float32


def test_two_operations_give_both_rates():
    large, narrow, rate = Kernel("fp32", 10**9, 10**6), Kernel("fp32", 10**7, 10**6), Rate(2e-11, 3e-10)
    found = two_rates(large, rate.seconds(large), narrow, rate.seconds(narrow))
    assert (found.per_flop, found.per_byte) == (pytest.approx(2e-11), pytest.approx(3e-10))


def test_times_that_need_a_negative_rate_give_one_rate():
    large, narrow = Kernel("fp32", 10**9, 10**6), Kernel("fp32", 10**7, 10**6)
    assert two_rates(large, 1.0, narrow, 1e-4) == Rate((1 + 1e-4) / 1.01e9, 0.0)


def test_each_operation_has_its_rate_or_that_of_its_kind():
    rates = {
        ("mm", FP32): Rate(1e-11, 0), ("add", FP32): Rate(0, 1e-10), ("gelu", FP32): Rate(0, 4e-10),
        ("convolution", FP32): Rate(2e-11, 0), ("clone", FP32): Rate(0, 2e-10), ("mm", torch.bfloat16): Rate(5e-12, 0),
    }  # fmt: skip
    cpu = CPU(rates, start=1e-6, threads=2)
    kernels = [
        (Kernel("fp32", 10**8, 0, "addmm"), 1e-3), (Kernel("tf32", 10**8, 0, "convolution"), 2e-3),
        (Kernel("bf16", 10**8, 0, "mm"), 5e-4), (Kernel("fp64", 10**8, 0, "bmm"), 1e-3),
        (Kernel("", 0, 10**7, "gelu"), 4e-3), (Kernel("", 0, 10**7, "sub"), 1e-3), (Kernel("", 0, 10**7), 1e-3),
        (Kernel("", 0, 10**7, "cat"), 2e-3),
    ]  # fmt: skip
    for kernel, seconds in kernels:
        assert cpu.seconds(Count([kernel])) == pytest.approx(seconds + 1e-6)
    assert cpu.seconds(Count([kernel for kernel, _ in kernels])) == pytest.approx(sum(s for _, s in kernels) + 8e-6)
    assert "2 threads" in cpu.title and "100 GFLOP/s" in cpu.title


def test_this_machine_is_measured_once_and_every_operation_of_a_block_has_a_rate():
    cpu = measure_cpu(None, torch.get_num_threads())
    assert cpu is measure_cpu(None, torch.get_num_threads())
    assert all(rate.per_flop >= 0 <= rate.per_byte and rate.per_flop + rate.per_byte > 0 for rate in cpu.rates.values())
    parts = (nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, 4), nn.GELU())
    block = nn.Sequential(*parts)
    with counting() as count:
        block.to("meta")(torch.empty(2, 8, 4, 4, device="meta")).sum().backward()
    named = {name for name, _ in cpu.rates}
    used = {kernel.name for kernel in count.kernels}
    assert used & named >= {
        "convolution", "convolution_backward", "native_group_norm", "native_group_norm_backward", "native_layer_norm",
        "native_layer_norm_backward", "silu", "silu_backward", "gelu", "gelu_backward", "mm", "addmm",
    }  # fmt: skip
    assert 0 < cpu.seconds(count) < 1


def test_operands_and_results_of_a_probe_are_not_those_of_the_call_before(monkeypatch):
    given = operands("cpu")
    first = [next(given) for _ in range(16)]
    assert len({x.data_ptr() for x in first}) == 16 and next(given) is first[0]
    seen = []
    monkeypatch.setattr(cpu_module, "_REPEATS", 3)
    ticks = iter([0.0, 5.0, 10.0, 11.0, 20.0, 23.0])
    assert cpu_module._typical(lambda: seen.append(torch.zeros(1000)) or seen[-1], lambda: next(ticks)) == 3      # of 5, 1 and 3
    assert len(seen) == 7
    forget_operands()
    assert next(operands("cpu")) is not first[0]
