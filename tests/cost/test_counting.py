"""Counted FLOPs against PyTorch's counter on real CPU steps, bytes against closed forms, memory against what autograd stores."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smtool.cost.counting import counting
from smtool.cost.cuda_autocast import cuda_autocast
from smtool.cost.turns import count_turn
from smtool.data import ImageBatch, LatentBatch
from smtool.devices import meta_as_cpu
from smtool.diffusion import Flow
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE
from smtool.networks.sit import SiT
from smtool.networks.uvit import UViT
from smtool.randomness import streams
from smtool.regularizers import DSM, ESM, KL, ScaleEquivariance, Shapes
from smtool.tasks.adversary import Adversary
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction
from smtool.tasks.diffusion import DiffusionTask, Labels
from smtool.training.activation_memory import peak_bytes

SAMPLES, SIDE = 4, 32
SMALL = SDVAE(downsample=4, latent_channels=4, channels=(8, 8, 16), norm_groups=4, blocks_per_level=1)
SHAPES = Shapes((SAMPLES, 3, SIDE, SIDE), (SAMPLES, 4, SIDE // 4, SIDE // 4))
METHODS = {"kl": KL(), "esm": ESM(), "dsm": DSM(block=8), "se": ScaleEquivariance(scales=(0.5,), form="append")}


def autoencoder_task(device: str) -> AutoencoderTask:
    adversary = Adversary(start=1, num_layers=1, channels=8)
    return AutoencoderTask(
        SMALL.build().to(device),
        {name: table.build(SHAPES, None).to(device) for name, table in METHODS.items()},
        reconstruction=Reconstruction(), perceptual=None, adversary=adversary, flip=True,
        discriminator=adversary.build().to(device),
    )  # fmt: skip


def transformer_task(kind: type[SiT] | type[UViT], device: str) -> DiffusionTask:
    network = kind(size="custom", depth=2, width=48, heads=3, patch=2).build((4, 8, 8), 5).to(device)
    stats = LatentStats("scalar", torch.zeros(1), torch.ones(1), count=1, data="")
    return DiffusionTask(network, Flow().build(), stats, labels=Labels())


def images(device: str) -> ImageBatch:
    return ImageBatch(torch.zeros(SAMPLES, 3, SIDE, SIDE, device=device), None, ("",) * SAMPLES)


def latents(device: str) -> LatentBatch:
    moments = torch.zeros(SAMPLES, 4, 8, 8, device=device)
    return LatentBatch(moments, moments, torch.zeros(SAMPLES, dtype=torch.int64, device=device), ("",) * SAMPLES)


def counted_by_torch(task, player, step, batch) -> int:
    """FLOPs of a real step on the CPU, by PyTorch's counter. Constant matrices are built and cached in a step before it."""
    for name, module in task.players.items():
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.requires_grad and name == player)
    task.loss(player, batch, streams(0, step, player, batch=SAMPLES), step)
    with FlopCounterMode(display=False) as counter:
        task.loss(player, batch, streams(0, step, player, batch=SAMPLES), step).total.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("player", "step"), [("autoencoder", 0), ("autoencoder", 2), ("discriminator", 3)])
def test_flops_of_an_autoencoder_step_equal_those_of_a_real_one(player, step):
    found = count_turn(autoencoder_task("meta"), player, step, images("meta"), precision="fp32").flops
    assert found == counted_by_torch(autoencoder_task("cpu"), player, step, images("cpu")) > 0


@pytest.mark.parametrize("kind", [SiT, UViT])
def test_flops_of_a_transformer_step_equal_those_of_a_real_one(kind):
    found = count_turn(transformer_task(kind, "meta"), "transformer", 0, latents("meta"), precision="fp32").flops
    assert found == counted_by_torch(transformer_task(kind, "cpu"), "transformer", 0, latents("cpu")) > 0


def test_precision_moves_flops_to_another_format_and_changes_no_number():
    task, batch = transformer_task(SiT, "meta"), latents("meta")
    full, half = (count_turn(task, "transformer", 0, batch, precision=precision) for precision in ("fp32", "bf16"))
    assert full.flops == half.flops
    assert set(full.flops_by_unit()) == {"fp32"}
    assert 0 < half.flops_by_unit()["fp32"] < 0.02 * half.flops      # the DCT of the logged bands, and embeddings of the time
    assert half.bytes < full.bytes and half.peak_bytes < full.peak_bytes


def test_bytes_are_those_of_inputs_and_outputs():
    x, w = torch.empty(6, 8, device="meta"), torch.empty(8, 10, device="meta")
    with counting() as count:
        y = x @ w      # reads 48 + 80 floats, writes 60
        y.add_(1.0)      # reads and writes 60
        z = y.T.reshape(5, 12).view(-1).relu()      # a copy of a transposed view, then 60 in and 60 out
        torch.empty_like(z).fill_(2.0)      # writes 60
        z[:10].copy_(x.flatten()[:10])      # reads 10, writes 10
    sizes = [48 + 80 + 60, 120, 120, 120, 60, 20]
    assert [kernel.bytes for kernel in count.kernels] == [4 * size for size in sizes]
    assert count.flops == 2 * 6 * 8 * 10 and [kernel.unit for kernel in count.kernels] == ["fp32", *[""] * 5]


def test_an_expanded_input_is_read_once_and_the_host_is_not_counted():
    row = torch.empty(1, 8, device="meta")
    with counting() as count:
        row.expand(100, 8).exp()
        torch.zeros(1000).exp()
        torch.zeros(3).to("meta")
    assert [kernel.bytes for kernel in count.kernels] == [4 * (8 + 800)]


def test_a_mask_selects_as_many_cells_as_it_has():
    mask = torch.tensor([True, False, True, True]).to
    with counting():
        selected = torch.empty(5, 4, device="meta")[..., mask("meta")]
    assert selected.shape == (5, 3)


def test_memory_is_near_that_of_torchs_tracker_and_of_stored_tensors():
    """PyTorch's tracker on the same step, and on a CPU the tensors that autograd stores, to which temporary ones come."""
    def step(network, device):
        return network.decode(network.encode(torch.zeros(SAMPLES, 3, SIDE, SIDE, device=device)).mean).square().mean()

    network, real, stored = SMALL.build().to("meta"), SMALL.build(), {}
    own = {parameter.untyped_storage().data_ptr() for parameter in real.parameters()}

    def pack(tensor):
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = step(real, "cpu")
    kept = sum(size for place, size in stored.items() if place not in own)
    del value
    with meta_as_cpu(), cuda_autocast(), counting(network) as count:
        step(network, "meta").backward()
    tracked = peak_bytes(lambda: step(network, "meta").backward())
    assert 0.9 * tracked < count.peak_bytes < 1.1 * tracked
    assert kept < count.peak_bytes < 1.4 * kept


def test_gradients_of_parameters_are_not_activations():
    wide = torch.nn.Linear(1000, 1000, bias=False, device="meta")
    with counting(wide) as count:
        wide(torch.empty(1, 1000, device="meta")).sum().backward()
    with counting() as with_gradients:
        wide.weight.grad = None
        wide(torch.empty(1, 1000, device="meta")).sum().backward()
    assert 4_000_000 < count.peak_bytes <= with_gradients.peak_bytes < 3 * 4_000_000
    with counting(wide) as again:      # the second gradient and the first, to which it is added
        wide(torch.empty(1, 1000, device="meta")).sum().backward()
    assert again.peak_bytes < 2 * 4_000_000 + 100_000
