import math

import pytest
import torch
from torch import nn

from smtool.data.batches import LatentBatch
from smtool.diffusion import DDPM, Flow, IRepa, Repa, RepaDog, WeightedAlignment
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.sit import SiT
from smtool.networks.uvit import UViT
from smtool.randomness import initializing, streams
from smtool.spectrum import dct2
from smtool.tasks.diffusion import NUM_BANDS, PLAYER, DiffusionTask, Labels, band_errors, band_index

SHAPE = (2, 8, 8)
STATS = LatentStats("channel", torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.25]), count=10, data="d")
DEPTH = 3
ALIGNMENTS = [
    Repa(teacher="t", depth=2, hidden=16),
    IRepa(teacher="t", depth=2),
    RepaDog(teacher="t", depth=2, sigma1=0.5, sigma2=2.0),
]


def awake(network: nn.Module) -> nn.Module:
    """The network with random weights in its zero-initialized layers: a new SiT has output 0 and identity blocks."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name != "pos_embed":
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return network


def network_of(kind: str, num_classes: int) -> nn.Module:
    config = (SiT if kind == "sit" else UViT)(size="custom", depth=DEPTH if kind == "sit" else 2, width=32, heads=2, patch=2)
    with initializing(0, "test"):
        return awake(config.build(SHAPE, num_classes))


class Teacher(nn.Module):
    """Substitute for a frozen network: uint8 images -> (B, 5, 4, 4)."""

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images.float(), 4).repeat(1, 2, 1, 1)[:, :5] / 255


def task_of(*, kind="sit", process=None, num_classes=3, dropout=0.1, config=None) -> DiffusionTask:
    network = network_of(kind, num_classes)
    alignment = None
    if config is not None:
        with initializing(0, "alignment"):
            module = config.build(network.width, network.token_grid, teacher_dim=5, teacher_grid=(4, 4))
        alignment = WeightedAlignment(module, config.weight, config.depth)
    return DiffusionTask(
        network,
        (process or Flow()).build(),
        STATS,
        labels=Labels(dropout=dropout) if num_classes else None,
        alignment=alignment,
        teacher=None if config is None else Teacher(),
    )


def batch_of(count: int, labels: bool = True) -> LatentBatch:
    generator = torch.Generator().manual_seed(2)
    mean = torch.randn((count, *SHAPE), generator=generator)
    logvar = torch.randn((count, *SHAPE), generator=generator) - 2
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return LatentBatch(mean, logvar, torch.arange(count) % 3 if labels else None, ("",) * count, images=images)


def draws_of(count: int, step: int = 0):
    return streams(7, step, PLAYER, batch=count)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 6, 10), (1, 1, 2, 2)])
def test_band_errors_equal_a_double_loop_over_cells(shape):
    error = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    power = dct2(error).square().mean((0, 1))
    height, width = shape[-2:]
    cells = {band: [] for band in range(1, 5)}
    for u in range(height):
        for v in range(width):
            r = math.sqrt((u / height) ** 2 + (v / width) ** 2)
            cells[1 if r < 0.25 else 2 if r < 0.5 else 3 if r < 0.75 else 4].append(float(power[u, v]))
    found = band_errors(error)
    assert list(found) == ["band1", "band2", "band3", "band4"]
    for band, values in cells.items():
        assert float(found[f"band{band}"]) == pytest.approx(sum(values) / len(values) if values else 0.0, rel=1e-12)


def test_bands_weighted_by_their_cells_add_up_to_the_whole_error():
    error = torch.randn((4, 3, 8, 12), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = torch.bincount(band_index(8, 12).flatten(), minlength=NUM_BANDS)
    total = sum(count * value for count, value in zip(cells, band_errors(error).values(), strict=True))
    torch.testing.assert_close(total, error.square().mean() * 8 * 12)


def test_a_constant_error_is_in_the_lowest_band_and_a_checkerboard_in_the_highest():
    flat = band_errors(torch.ones(1, 1, 8, 8))
    assert flat["band1"] > 1
    assert max(flat["band2"], flat["band3"], flat["band4"]) < 1e-10
    checks = band_errors(((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1)[None, None])
    assert checks["band4"] > 10 * max(checks["band1"], checks["band2"], checks["band3"])


@pytest.mark.parametrize("autocast", [False, True])
def test_logged_bands_add_up_to_the_logged_loss(autocast):
    """Also under autocast: the transform of the error is computed in float32."""
    task = task_of()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values = task.loss(PLAYER, batch_of(4), draws_of(4), 0).values
    cells = torch.bincount(band_index(8, 8).flatten(), minlength=NUM_BANDS)
    total = sum(count * values[f"band{k}"] for k, count in enumerate(cells, start=1)) / 64
    torch.testing.assert_close(total, values["diffusion"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("labels", [True, False])
def test_the_flow_loss_equals_a_direct_computation(labels):
    """x_t = (1 - t) x + t noise, with target noise - x; latents are sampled, then normalized per channel."""
    task = task_of(num_classes=3 if labels else 0)
    batch, draws = batch_of(6, labels), draws_of(6)
    noise, t = draws.batch("noise", (6, *SHAPE)), draws.uniform("time", (6,))
    raw = batch.mean + (batch.logvar / 2).exp() * draws.batch("posterior", (6, *SHAPE))
    x = torch.stack([(raw[:, 0] - 0.5) / 2.0, (raw[:, 1] + 1.0) / 0.25], dim=1)
    x_t = torch.stack([(1 - t[k]) * x[k] + t[k] * noise[k] for k in range(6)])
    told = None
    if labels:
        drop = draws.uniform("label dropout", (6,))
        told = torch.tensor([3 if drop[k] < 0.1 else int(batch.labels[k]) for k in range(6)])
    expected = (task.network(x_t, t, told).output - (noise - x)).square().mean()
    loss = task.loss(PLAYER, batch, draws, 0)
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.values["diffusion"], expected.detach())
    assert not loss.values["diffusion"].requires_grad


def test_the_ddpm_loss_has_the_noise_as_target_at_one_of_a_thousand_levels():
    task = task_of(kind="uvit", process=DDPM(), num_classes=0)
    batch, draws = batch_of(6, labels=False), draws_of(6)
    noise, uniform = draws.batch("noise", (6, *SHAPE)), draws.uniform("time", (6,))
    raw = batch.mean + (batch.logvar / 2).exp() * draws.batch("posterior", (6, *SHAPE))
    x = (raw - torch.tensor([0.5, -1.0]).view(1, 2, 1, 1)) / torch.tensor([2.0, 0.25]).view(1, 2, 1, 1)
    root = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    level = [math.floor(float(u) * 1000) + 1 for u in uniform]
    abar = [float((1 - root[:n] ** 2).prod()) for n in level]
    x_t = torch.stack([abar[k] ** 0.5 * x[k] + (1 - abar[k]) ** 0.5 * noise[k] for k in range(6)])
    expected = (task.network(x_t, torch.tensor(level, dtype=torch.float32), None).output - noise).square().mean()
    torch.testing.assert_close(task.loss(PLAYER, batch, draws, 0).total, expected)


def test_a_fraction_of_labels_is_replaced_by_the_null_class():
    task, count = task_of(dropout=0.2), 4000
    batch = batch_of(count)
    found = task._dropped(batch.labels, draws_of(count))
    dropped = found == 3
    assert 0.2 * count * 0.9 < dropped.sum() < 0.2 * count * 1.1      # 4 standard deviations
    assert torch.equal(found[~dropped], batch.labels[~dropped])
    assert not torch.equal(dropped, task._dropped(batch.labels, draws_of(count, step=1)) == 3)


def test_which_labels_are_dropped_follows_the_position_in_the_global_batch():
    task, batch = task_of(dropout=0.5), batch_of(64)
    whole = task._dropped(batch.labels, draws_of(64))
    part = task._dropped(batch.slice(16, 32).labels, draws_of(64).at(16, 32))
    assert torch.equal(part, whole[16:32])


def test_without_a_labels_table_classes_of_the_data_are_not_used():
    task = task_of(num_classes=0)
    torch.testing.assert_close(
        task.loss(PLAYER, batch_of(4), draws_of(4), 0).total, task.loss(PLAYER, batch_of(4, labels=False), draws_of(4), 0).total
    )


def test_two_halves_of_a_batch_average_to_the_whole():
    task, batch = task_of(config=ALIGNMENTS[0]), batch_of(8)
    halves = [task.loss(PLAYER, batch.slice(at, at + 4), draws_of(8).at(at, at + 4), 0) for at in (0, 4)]
    torch.testing.assert_close(sum(half.total for half in halves) / 2, task.loss(PLAYER, batch, draws_of(8), 0).total)


@pytest.mark.parametrize("config", ALIGNMENTS, ids=lambda config: config.kind)
def test_the_alignment_enters_with_its_weight(config):
    task = task_of(config=config)
    loss = task.loss(PLAYER, batch_of(4), draws_of(4), 0)
    torch.testing.assert_close(loss.total.detach(), loss.values["diffusion"] + 0.5 * loss.values["alignment"])
    assert -1 <= loss.values["alignment"] <= 1


@pytest.mark.parametrize("config", ALIGNMENTS, ids=lambda config: config.kind)
def test_the_alignments_gradient_reaches_the_projector_and_the_blocks_up_to_its_depth_only(config):
    task = task_of(config=config)
    plain = task_of()
    batch, draws = batch_of(4), draws_of(4)
    loss = task.loss(PLAYER, batch, draws, 0)
    alone = (loss.total - plain.loss(PLAYER, batch, draws, 0).total.detach() - 0.0).sum()
    alone.backward()
    plain.loss(PLAYER, batch, draws, 0).total.backward()
    theirs = dict(plain.network.named_parameters())
    for name, parameter in task.network.named_parameters():
        if name == "pos_embed":
            continue
        felt = (parameter.grad - theirs[name].grad).abs().max() > 1e-7
        beyond = name.startswith(("blocks.2.", "final_layer"))
        early = name.startswith(("blocks.0.", "blocks.1.", "x_embedder"))
        assert not (beyond and felt), name
        if early and name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")):
            assert felt, name
    assert all(parameter.grad.abs().max() > 0 for parameter in task.alignment.module.parameters())


def test_the_player_holds_the_network_and_the_projector_but_not_the_teacher():
    task = task_of(config=ALIGNMENTS[1])
    names = set(task.players[PLAYER].state_dict())
    assert {name.split(".")[0] for name in names} == {"network", "alignment"}
    assert task.players_at(5) == (PLAYER,)
    assert task.count_turns(PLAYER, 5) == 5


def test_cached_features_replace_the_teacher():
    task, batch = task_of(config=ALIGNMENTS[0]), batch_of(4)
    online = task.loss(PLAYER, batch, draws_of(4), 0).total
    cached = LatentBatch(batch.mean, batch.logvar, batch.labels, batch.ids, features=Teacher()(batch.images))
    task.teacher = None
    torch.testing.assert_close(task.loss(PLAYER, cached, draws_of(4), 0).total, online)


def test_weights_of_channels_apply_to_the_diffusion_loss_and_not_to_the_alignment_or_the_bands():
    plain, weighted = task_of(config=ALIGNMENTS[0]), task_of(config=ALIGNMENTS[0])
    weighted.channel_weights = torch.tensor([3.0, 0.5], dtype=torch.float64)
    batch, draws = batch_of(4), draws_of(4)
    one, other = (task.loss(PLAYER, batch, draws, 0) for task in (plain, weighted))
    assert all(torch.equal(one.values[name], other.values[name]) for name in one.values if name != "diffusion")
    alone = []
    for channel in range(2):
        weighted.channel_weights = torch.eye(2, dtype=torch.float64)[channel]
        alone.append(weighted.loss(PLAYER, batch, draws, 0).values["diffusion"])
    torch.testing.assert_close(other.values["diffusion"], 3.0 * alone[0] + 0.5 * alone[1])
    torch.testing.assert_close(sum(alone), one.values["diffusion"])
    torch.testing.assert_close(other.total.detach(), other.values["diffusion"] + 0.5 * other.values["alignment"])


def test_the_cosine_term_is_that_of_every_position_and_leaves_the_others_alone():
    plain, turned = task_of(), task_of()
    turned.cosine = 0.5
    kept = []
    turned.network.register_forward_hook(lambda module, inputs, found: kept.append(found.output))
    batch = batch_of(4)
    one, other = (task.loss(PLAYER, batch, draws_of(4), 0) for task in (plain, turned))
    (prediction,) = kept
    posterior = Posterior(batch.mean, batch.logvar)
    latents = turned.stats.normalize(posterior.sample(draws_of(4).batch("posterior", batch.mean.shape)))
    target = draws_of(4).batch("noise", latents.shape) - latents
    expected = 1 - (prediction * target).sum(1) / (prediction.square().sum(1) * target.square().sum(1)).sqrt()
    torch.testing.assert_close(other.values["cosine"], expected.mean().detach(), rtol=1e-5, atol=1e-6)
    assert "cosine" not in one.values and torch.equal(one.values["diffusion"], other.values["diffusion"])
    torch.testing.assert_close(other.total, one.total + 0.5 * expected.mean())
