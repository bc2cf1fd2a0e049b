"""Times against closed forms, traffic against a ring that is played through, and published counts."""

import pytest
import torch
from torch import nn

from smtool.cost.counting import Count, Kernel, counting
from smtool.cost.cuda_autocast import cuda_autocast
from smtool.cost.gpus import GPUS, LAUNCH_SECONDS, LINK_EFFICIENCY, MATRIX_EFFICIENCY, MEMORY_EFFICIENCY, find_gpu, installed_gpu
from smtool.cost.traffic import all_reduce_bytes, largest_unit, shard_bytes
from smtool.errors import RecipeError, WeightsError
from smtool.features.perceptual import PerceptualDistance
from smtool.features.teachers import load_teacher
from smtool.features.weights import find_weights, without_weights
from smtool.networks.shapes_only import shapes_only
from smtool.networks.sit import SiT

H100 = GPUS["h100"]


def test_the_floor_is_the_larger_of_arithmetic_and_traffic():
    arithmetic = Count([Kernel("bf16", 989_400_000_000_000, 8), Kernel("tf32", 494_700_000_000_000, 8)])
    assert H100.floor_seconds(arithmetic) == pytest.approx(2)
    assert H100.floor_seconds(Count([Kernel("", 0, 3_350_000_000_000)] * 3)) == pytest.approx(3)


def test_predicted_kernels_follow_each_other_at_the_stated_efficiencies():
    count = Count([Kernel("bf16", 10**15, 10), Kernel("", 0, 10**12)])
    expected = 1e15 / 989.4e12 / MATRIX_EFFICIENCY + 1e12 / 3.35e12 / MEMORY_EFFICIENCY
    assert H100.seconds(count) == pytest.approx(expected)
    assert H100.floor_seconds(count) < expected
    assert H100.seconds(Count([Kernel("", 0, 8)] * 1000)) == pytest.approx(1000 * LAUNCH_SECONDS)


def test_an_unknown_gpu_is_an_error_that_names_the_known_ones():
    assert find_gpu("A100").title.startswith("A100")
    with pytest.raises(RecipeError, match="--gpu v100") as error:
        find_gpu("v100")
    assert error.value.hint == "Known are h100, h200, a100, 4090."


def test_an_installed_gpu_is_known_by_its_whole_name():
    assert installed_gpu("NVIDIA H200") is GPUS["h200"]
    assert installed_gpu("NVIDIA H100 PCIe") is None      # of lower peaks than that of the datasheet


@pytest.mark.parametrize("ranks", [1, 2, 4, 7])
def test_the_traffic_of_an_average_is_that_of_a_ring(ranks):
    """Each rank sends one chunk to its neighbour per round, in N - 1 rounds of sums and N - 1 of copies."""
    buffers = torch.rand(ranks, ranks, 3, dtype=torch.float64)
    expected, sent = buffers.sum(0), 0
    for turn in range(2 * (ranks - 1)):
        chunks = [(rank - turn) % ranks for rank in range(ranks)]
        moved = [buffers[rank, chunk].clone() for rank, chunk in enumerate(chunks)]
        for rank, chunk in enumerate(chunks):
            target = buffers[(rank + 1) % ranks]
            target[chunk] = moved[rank] + target[chunk] if turn < ranks - 1 else moved[rank]
        sent += moved[0].numel()
    assert torch.allclose(buffers, expected.expand_as(buffers))
    assert all_reduce_bytes(ranks * 3, ranks) == pytest.approx(sent)


def test_sharded_parameters_are_gathered_twice_a_micro_batch_and_gradients_scattered_once():
    assert shard_bytes(1000, 1) == 0
    assert shard_bytes(1000, 4) == 3 * 3 * 250 * 4      # three gathers or scatters of the three quarters that are elsewhere
    assert shard_bytes(1000, 4, micro_batches=2) == 5 * 3 * 250 * 4
    assert H100.link_seconds(450e9, 8) == pytest.approx(1 / LINK_EFFICIENCY)
    assert H100.link_seconds(450e9, 9) == pytest.approx(9 / LINK_EFFICIENCY)      # between nodes


def test_the_largest_unit_is_a_block_or_what_is_in_none():
    blocks = nn.ModuleList([nn.Linear(10, 10, bias=False), nn.Linear(20, 10, bias=False)])
    network = nn.ModuleDict({"first": nn.Linear(3, 3, bias=False), "blocks": blocks})
    assert largest_unit(network) == 200
    network["first"] = nn.Linear(30, 30, bias=False)
    assert largest_unit(network) == 900


@pytest.mark.parametrize(
    ("size", "patch", "billions"), [("S", 2, 6.06), ("B", 2, 23.01), ("L", 2, 80.71), ("XL", 2, 118.64), ("B", 4, 5.56)]
)
def test_forward_passes_cost_what_dit_publishes(size, patch, billions):
    """DiT (arXiv 2212.09748), Table 4, whose Gflops are multiplications with an addition; SiT has the same network."""
    with shapes_only():
        network = SiT(size=size, patch=patch).build((4, 32, 32), 1000)
    labels = torch.zeros(1, dtype=torch.int64, device="meta")
    with torch.no_grad(), cuda_autocast(), counting() as count:
        network(torch.empty(1, 4, 32, 32, device="meta"), torch.empty(1, device="meta"), labels)
    assert count.flops / 2e9 == pytest.approx(billions, rel=0.002)


def refuse(*arguments, **options):
    raise OSError("no network in this test")


def test_frozen_networks_are_built_without_their_weights(monkeypatch, tmp_path):
    """VGG16 convolutions at 224 px: 15.35 billion multiplications with an addition; DINOv2 ViT-B: 86 million parameters."""
    monkeypatch.setenv("SMTOOL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with without_weights():
        lpips = PerceptualDistance("vgg").to("meta")
        teacher = load_teacher("dinov2-b", token_grid=(16, 16)).to("meta")
    x = torch.empty(1, 3, 224, 224, device="meta")
    with torch.no_grad(), cuda_autocast(), counting() as count:
        lpips(x, x)
    assert count.flops / 4e9 == pytest.approx(15.35, rel=0.01)
    assert sum(p.numel() for p in teacher.network.parameters()) == pytest.approx(86e6, rel=0.01)
    assert (teacher.dim, teacher.grid) == (768, (16, 16)) and lpips.digest == ""
    with pytest.raises(WeightsError, match="no network in this test"):
        find_weights("vgg16", purpose="a test outside the block")
