"""Joint training of autoencoder and transformer, restated here with PyTorch's BatchNorm2d, losses and optimizers."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from smtool.data.batches import ImageBatch
from smtool.diffusion import Flow, Repa, WeightedAlignment
from smtool.networks.discriminator import PatchGAN
from smtool.networks.latent_norm import LatentNorm
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE
from smtool.networks.sit import SiT
from smtool.randomness import initializing, streams
from smtool.regularizers import KL, Shapes
from smtool.tasks.adversary import Adversary
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction
from smtool.tasks.diffusion import PLAYER, DiffusionTask, Labels
from smtool.tasks.end_to_end import EndToEndTask
from smtool.training.distributed import Ranks
from smtool.training.ema import MovingAverage
from smtool.training.loop import Plan, Training, optimize
from smtool.training.optimizer import AdamW
from smtool.training.precision import MixedPrecision

BATCH, CLASSES, TEACHER = 4, 3, 5
SHAPES = Shapes((BATCH, 3, 16, 16), (BATCH, 2, 4, 4))
ALIGNMENT, OF_AUTOENCODER, GAN, KL_WEIGHT = 0.5, 1.5, 0.1, 1e-3
MOMENTUM, EPS = 0.1, 1e-4
ROUNDING = {"rtol": 2e-5, "atol": 1e-7}
"""Some losses are means in float32, whose gradients are rounded to 6e-8."""


class Distance(nn.Module):
    """A perceptual distance: mean square of differences between neighbours."""

    def forward(self, x, y):
        return (x - y).diff(dim=-1).square().mean((1, 2, 3))


def make_task(*, adversary: bool = True) -> EndToEndTask:
    with initializing("end to end"):
        autoencoder = SDVAE(downsample=4, latent_channels=2, channels=(4, 4, 8), norm_groups=2, blocks_per_level=1).build()
        discriminator = PatchGAN(num_layers=1, channels=4, init_std=0.2).build()
        network = SiT(size="custom", depth=3, width=8, heads=2, patch=2).build((2, 4, 4), CLASSES)
        table = Repa(teacher="none", depth=2, hidden=6)
        alignment = table.build(8, (2, 2), teacher_dim=TEACHER, teacher_grid=(2, 2))
        for parameter in network.parameters():      # its last layers are 0 at first
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.3)
    norm = LatentNorm(2, momentum=MOMENTUM, eps=EPS)
    norm.start_from(LatentStats("channel", torch.tensor([0.3, -0.2]), torch.tensor([0.7, 1.2]), 9, "x"))
    rules = Adversary(weight=GAN, start=0, updates="simultaneous", adaptive=False, num_layers=1, channels=4)
    autoencoding = AutoencoderTask(
        autoencoder.double(),
        {"kl": KL(weight=KL_WEIGHT).build(SHAPES, None)},
        reconstruction=Reconstruction(),
        perceptual=(Distance(), 1.0),
        adversary=rules if adversary else None,
        discriminator=discriminator.double() if adversary else None,
        flip=False,
    )
    stats = LatentStats("channel", torch.zeros(2), torch.ones(2), 0, "not used")
    weighted = WeightedAlignment(alignment.double(), ALIGNMENT, table.depth)
    diffusion = DiffusionTask(network.double(), Flow().build(), stats, labels=Labels(dropout=0.5), alignment=weighted)
    return EndToEndTask(autoencoding, diffusion, norm.double(), weight=OF_AUTOENCODER)


def batch_of(number: int) -> ImageBatch:
    draws = torch.Generator().manual_seed(number)
    images = torch.rand(BATCH, 3, 16, 16, generator=draws, dtype=torch.float64) * 2 - 1
    features = torch.randn(BATCH, TEACHER, 2, 2, generator=draws, dtype=torch.float64)
    return ImageBatch(images, torch.tensor([0, 1, 2, 1]), tuple("abcd"), features)


class Restated:
    """The step of the released trainer (released-code.md#repa-e) on copies of a task's networks."""

    def __init__(self, task: EndToEndTask) -> None:
        self.vae = copy.deepcopy(task.autoencoding.autoencoder)
        self.gan = copy.deepcopy(task.autoencoding.discriminator)
        self.sit, self.mlp = copy.deepcopy(task.diffusion.network), copy.deepcopy(task.diffusion.alignment.module.projector)
        self.bn = nn.BatchNorm2d(2, eps=EPS, momentum=MOMENTUM, affine=False).double()
        self.bn.running_mean.copy_(task.norm.running_mean)
        self.bn.running_var.copy_(task.norm.running_var)

    def draws(self, step: int) -> tuple[torch.Tensor, ...]:
        """Noise of the posterior, times, noise, labels that are dropped."""
        mine, theirs = (streams(0, step, turn, batch=BATCH) for turn in ("autoencoder", PLAYER))
        noise = theirs.batch("noise", SHAPES.latents).double()
        dropped = theirs.uniform("label dropout", (BATCH,)) < 0.5
        return mine.batch("posterior", SHAPES.latents).double(), theirs.uniform("time", (BATCH,)).double(), noise, dropped

    def mixed(self, normalized, t, noise):
        t = t.view(-1, 1, 1, 1)
        return (1 - t) * normalized + t * noise, noise - normalized

    def cosine(self, tokens, features):
        projected, target = self.mlp(tokens), features.flatten(2).transpose(1, 2)
        length = projected.norm(dim=2) * target.norm(dim=2)
        return -((projected * target).sum(2) / length).mean()

    def autoencoder_loss(self, batch, step):
        noise_z, t, noise, _ = self.draws(step)
        posterior = self.vae.encode(batch.images)
        z = posterior.mean + (0.5 * posterior.logvar).exp() * noise_z
        x = self.vae.decode(z)
        kl = 0.5 * (posterior.mean**2 + posterior.logvar.exp() - 1 - posterior.logvar).sum((1, 2, 3)).mean()
        perceptual = ((x - batch.images)[..., 1:] - (x - batch.images)[..., :-1]).pow(2).mean((1, 2, 3)).mean()
        adversarial = 0 if self.gan is None else -self.gan(x).mean()
        self.bn.eval()
        x_t, _ = self.mixed(self.bn(z), t, noise)
        tokens = self.sit(x_t, t, batch.labels, tap=2).tokens
        total = (x - batch.images).abs().mean() + perceptual + GAN * adversarial + KL_WEIGHT * kl
        return total + OF_AUTOENCODER * self.cosine(tokens, batch.features), z.detach(), x.detach()

    def discriminator_loss(self, batch, x):
        return 0.5 * (F.relu(1 - self.gan(batch.images)).mean() + F.relu(1 + self.gan(x)).mean())

    def transformer_loss(self, batch, z, step):
        _, t, noise, dropped = self.draws(step)
        self.bn.train()
        x_t, target = self.mixed(self.bn(z), t, noise)
        labels = torch.where(dropped, CLASSES, batch.labels)
        found = self.sit(x_t, t, labels, tap=2)
        return ((found.output - target) ** 2).mean() + ALIGNMENT * self.cosine(found.tokens, batch.features)


def gradients(loss, module) -> dict[str, torch.Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None}


def test_losses_and_gradients_of_all_players_equal_the_restatement():
    task = make_task()
    other, batch, step = Restated(task), batch_of(0), 3
    draws = {player: streams(0, step, player, batch=BATCH) for player in task.players}
    assert task.players_at(step) == ("autoencoder", "discriminator", PLAYER)

    mine = task.loss("autoencoder", batch, draws["autoencoder"], step)
    theirs, z, x = other.autoencoder_loss(batch, step)
    assert_close(mine.total.double(), theirs, rtol=1e-6, atol=0)
    found = gradients(mine.total, task.players["autoencoder"])
    expected = gradients(theirs, other.vae)
    assert {name.removeprefix("autoencoder.") for name in found} == set(expected)
    for name, value in expected.items():
        assert_close(found[f"autoencoder.{name}"], value, **ROUNDING)
    assert torch.equal(task.norm.running_mean, other.bn.running_mean)      # this turn leaves the statistics unchanged

    mine = task.loss("discriminator", batch, draws["discriminator"], step)
    other.gan.load_state_dict(task.autoencoding.discriminator.state_dict())
    theirs = other.discriminator_loss(batch, x)
    assert_close(mine.total.double(), theirs, rtol=1e-6, atol=0)
    expected, found = gradients(theirs, other.gan), gradients(mine.total, task.players["discriminator"])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, **ROUNDING, msg=name)

    mine = task.loss(PLAYER, batch, draws[PLAYER], step)
    other.mlp.zero_grad()
    theirs = other.transformer_loss(batch, z, step)
    assert_close(mine.total.double(), theirs, rtol=1e-6, atol=0)
    expected = {f"network.{k}": v for k, v in gradients(theirs, other.sit).items()}
    expected |= {f"alignment.projector.{k}": p.grad for k, p in other.mlp.named_parameters()}
    found = gradients(mine.total, task.players[PLAYER])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, **ROUNDING, msg=name)
    assert_close(task.norm.running_mean, other.bn.running_mean, rtol=1e-12, atol=0)
    assert_close(task.norm.running_var, other.bn.running_var, rtol=1e-12, atol=0)


TABLES = {
    "autoencoder": AdamW(lr=1e-2, weight_decay=0.1, eps=1e-2, warmup=0),
    "discriminator": AdamW(lr=2e-2, weight_decay=0.0, eps=1e-2, warmup=0),
    PLAYER: AdamW(lr=3e-2, weight_decay=0.0, eps=1e-2, warmup=0),
}
"""A large eps, so that rounding of tiny gradients is not magnified."""
DECAY = 0.7


def trained(task: EndToEndTask, steps: int, *, accumulate: int = 1) -> MovingAverage:
    average = MovingAverage(task.players[PLAYER], DECAY, warmup=False)
    training = Training(
        task,
        {player: TABLES[player].build(module.named_parameters(), "cpu") for player, module in task.players.items()},
        {PLAYER: average},
        MixedPrecision("fp32", "cpu"),
        Ranks(0, 1, "cpu"),
        Plan(seed=0, batch=BATCH, accumulate=accumulate, last_step=steps),
    )
    for _ in optimize(training, map(batch_of, range(steps)), first_step=0):
        pass
    return average


def test_three_steps_equal_the_released_order_of_updates_with_torch_optimizers():
    """One forward pass of the autoencoder per step: discriminator and SiT see decodings and latents from before its update."""
    task = make_task()
    other = Restated(task)
    average = trained(task, 3)
    parts = {"vae": [other.vae], "gan": [other.gan], "sit": [other.sit, other.mlp]}
    optimizers = {}
    for (name, modules), table in zip(parts.items(), TABLES.values(), strict=True):
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        optimizers[name] = parameters, torch.optim.AdamW(parameters, lr=table.lr, eps=table.eps, weight_decay=table.weight_decay)

    def update(name, loss):
        parameters, optimizer = optimizers[name]
        gradient = torch.autograd.grad(loss, parameters, allow_unused=True)
        norm = torch.stack([g.norm() for g in gradient if g is not None]).norm()
        for parameter, g in zip(parameters, gradient, strict=True):
            parameter.grad = None if g is None else g * (1 / (norm + 1e-6)).clamp(max=1)
        optimizer.step()

    kept = copy.deepcopy([other.sit, other.bn])
    for step in range(3):
        batch = batch_of(step)
        loss, z, x = other.autoencoder_loss(batch, step)
        update("vae", loss)
        update("gan", other.discriminator_loss(batch, x))
        update("sit", other.transformer_loss(batch, z, step))
        with torch.no_grad():
            for mean, now in zip(kept, [other.sit, other.bn], strict=True):
                for a, b in zip([*mean.parameters(), *mean.buffers()], [*now.parameters(), *now.buffers()], strict=True):
                    a.copy_(DECAY * a + (1 - DECAY) * b if a.is_floating_point() else b)
    same = [
        (task.autoencoding.autoencoder, other.vae), (task.autoencoding.discriminator, other.gan),
        (task.diffusion.network, other.sit), (task.diffusion.alignment.module.projector, other.mlp), (task.norm, other.bn),
        (average.module["network"], kept[0]), (average.module["latent_norm"], kept[1]),
    ]
    for mine, theirs in same:
        expected = theirs.state_dict()
        assert mine.state_dict().keys() == expected.keys()
        for name, value in mine.state_dict().items():
            assert_close(value, expected[name], rtol=1e-5, atol=1e-7, msg=name)
    assert not torch.allclose(kept[1].running_mean, other.bn.running_mean, rtol=1e-3)


def test_the_turn_of_one_player_gives_no_gradient_to_the_others():
    task = make_task()
    draws = {player: streams(0, 0, player, batch=BATCH) for player in task.players}
    for module in task.players.values():
        for parameter in module.parameters():
            parameter.requires_grad_(False)
    for player, module in task.players.items():
        module.requires_grad_(True)
        task.loss(player, batch_of(0), draws[player], 0).total.backward()
        touched = {name for name, one in task.players.items() if any(p.grad is not None for p in one.parameters())}
        assert touched == {player}
        module.requires_grad_(False)
        for parameter in module.parameters():
            parameter.grad = None


def test_without_alignment_of_the_autoencoder_its_gradient_is_that_of_its_own_losses():
    task = make_task()
    draws, batch = streams(0, 0, "autoencoder", batch=BATCH), batch_of(0)
    alone = gradients(task.autoencoding.loss("autoencoder", batch, draws, 0).total, task.players["autoencoder"])
    task.weight = 0.0
    found = gradients(task.loss("autoencoder", batch, draws, 0).total, task.players["autoencoder"])
    for name, value in alone.items():
        assert_close(found[name], value, rtol=1e-12, atol=1e-12, msg=name)
    task.weight = 1.0
    with_alignment = gradients(task.loss("autoencoder", batch, draws, 0).total, task.players["autoencoder"])
    moved = {name for name, value in alone.items() if not torch.allclose(with_alignment[name], value)}
    assert moved and all(name.startswith(("autoencoder.encoder", "autoencoder.quant_conv")) for name in moved)


def test_without_a_discriminator_two_players_remain():
    task = make_task(adversary=False)
    assert task.players_at(0) == ("autoencoder", PLAYER)
    before = {name: value.clone() for name, value in task.diffusion.network.state_dict().items()}
    trained(task, 1)
    assert not torch.equal(before["x_embedder.proj.weight"], task.diffusion.network.state_dict()["x_embedder.proj.weight"])


def test_micro_batches_are_each_normalized_by_their_own_statistics():
    """As with any BatchNorm: the running statistics move once per micro-batch."""
    task = make_task()
    trained(task, 2, accumulate=2)
    assert task.norm.num_batches_tracked == 4
