import itertools

import pytest
import torch
from torch import nn

from smtool.data.batches import ImageBatch
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing, streams
from smtool.regularizers import DSM, EQVAE, ESM, KL, Regularizer, ScaleEquivariance, Shapes
from smtool.tasks.adversary import Adversary
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction, last_trained
from smtool.training.selection import train_only
from smtool.training.terms import AdaptiveWeight

SECTION = SDVAE(downsample=4, latent_channels=2, norm_groups=4, channels=(4, 4, 8), blocks_per_level=1)
SHAPES = Shapes((4, 3, 32, 32), (4, 2, 8, 8))
METHODS = {
    "kl": KL(),
    "esm": ESM(),
    "dsm": DSM(),
    "scale_equivariance": ScaleEquivariance(scales=(1.0, 0.5)),
    "eq_vae": EQVAE(prior=0.0, smallest=0.5),
}


class Distance(nn.Module):
    """Substitute for LPIPS: (x, y) -> (B,)."""

    def forward(self, x, y):
        return (x - y).square().flatten(1).mean(1)


def _task(*names: str, adversary: Adversary | None = None, flip: bool = False, **changes) -> AutoencoderTask:
    with initializing(0, "test"):
        autoencoder = SECTION.build()
        discriminator = adversary.build() if adversary else None
    methods = {name: METHODS[name].build(SHAPES, None) for name in names}
    keys = {"reconstruction": Reconstruction(), "perceptual": None} | changes
    return AutoencoderTask(autoencoder, methods, adversary=adversary, discriminator=discriminator, flip=flip, **keys)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
def test_all_methods_train_on_rectangles_and_on_other_channels(channels, size):
    table = SECTION.model_copy(update={"image_channels": channels})
    shapes = Shapes((4, channels, *size), (4, 2, size[0] // 4, size[1] // 4))
    adversary = Adversary(num_layers=1, channels=4, start=0)
    task = AutoencoderTask(
        table.build(),
        {name: method.build(shapes, None) for name, method in METHODS.items()},
        reconstruction=Reconstruction(), perceptual=None, adversary=adversary, discriminator=adversary.build(), flip=True,
    )
    images = torch.rand(4, channels, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    seen = []
    task.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    for step in range(4):
        player = "discriminator" if step % 2 else "autoencoder"
        loss = task.loss(player, ImageBatch(images, None, tuple("abcd")), _draws(player, step), step)
        loss.total.backward()
        assert torch.isfinite(loss.total)
    assert set(seen) == {3}
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in task.autoencoder.parameters())


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_discriminator_sees_gray_as_three_channels_and_alpha_on_mid_gray(channels):
    adversary = Adversary(num_layers=1, channels=4, start=0)
    table = SECTION.model_copy(update={"image_channels": channels})
    keys = {"reconstruction": Reconstruction(), "perceptual": None, "adversary": adversary, "flip": False}
    with initializing(0, "test"):
        task = AutoencoderTask(table.build(), {}, discriminator=adversary.build(), **keys)
    images = torch.rand(4, channels, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    seen = []
    task.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    task.loss("discriminator", ImageBatch(images, None, tuple("abcd")), _draws("discriminator", 1), 1)
    task.loss("autoencoder", ImageBatch(images, None, tuple("abcd")), _draws("autoencoder", 0), 0)
    decoded = task.autoencoder.decode(task.autoencoder.encode(images).sample(
        _draws("autoencoder", 0).batch("posterior", (4, 2, 8, 8))
    ))
    for found, made in ((seen[0], images), (seen[2], decoded)):
        levels = (made.double() + 1) / 2
        alpha = levels[:, -1:] if channels in (2, 4) else 1.0
        colors = levels[:, :1].repeat(1, 3, 1, 1) if channels < 3 else levels[:, :3]
        expected = 2 * (alpha * colors + (1 - alpha) * 0.5) - 1
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def _batch() -> ImageBatch:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return ImageBatch(images, None, ("a", "b", "c", "d"))


def _draws(player: str = "autoencoder", step: int = 0):
    return streams(0, step, player, batch=4)


def test_plain_loss_is_the_mean_absolute_difference():
    task, batch = _task(), _batch()
    loss = task.loss("autoencoder", batch, _draws(), 0)
    posterior = task.autoencoder.encode(batch.images)
    decoded = task.autoencoder.decode(posterior.sample(_draws().batch("posterior", posterior.mean.shape)))
    torch.testing.assert_close(loss.total, (decoded - batch.images).abs().mean())
    assert set(loss.values) == {"l1"}


def test_perceptual_and_squared_terms_enter_with_their_weights():
    task = _task(reconstruction=Reconstruction(loss="l2", weight=2.0), perceptual=(Distance(), 0.5))
    loss = task.loss("autoencoder", _batch(), _draws(), 0)
    torch.testing.assert_close(loss.values["l2"], loss.values["lpips"])
    torch.testing.assert_close(loss.total, 2.5 * loss.values["l2"])


@pytest.mark.parametrize("names", [names for n in (1, 2, 5) for names in itertools.combinations(METHODS, n)], ids="+".join)
def test_methods_combine(names):
    task = _task(*names, adversary=Adversary(num_layers=1, channels=4, start=0))
    for step in range(4):
        loss = task.loss("autoencoder", _batch(), _draws(step=step), step)
        loss.total.backward()
        assert torch.isfinite(loss.total)
        assert {"esm", "kl"} & set(names) <= set(loss.values)
    gradients = [p.grad for p in task.autoencoder.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_penalties_are_weighted_into_the_total():
    loss = _task("kl", "esm").loss("autoencoder", _batch(), _draws(), 0)
    expected = loss.values["l1"] + 1e-6 * loss.values["kl"] + 0.01 * loss.values["esm"]
    torch.testing.assert_close(loss.total, expected)


def test_discriminator_sees_low_passed_targets_and_no_graph_reaches_the_autoencoder():
    adversary = Adversary(num_layers=1, channels=4, start=0)
    task = _task("dsm", adversary=adversary)
    step = next(s for s in range(50) if task.methods["dsm"].draw(_draws("discriminator", s), task._shapes(_batch().images)) == 12)
    seen = []
    task.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    loss = task.loss("discriminator", _batch(), _draws("discriminator", step), step)
    loss.total.backward()
    assert all(p.grad is None for p in task.autoencoder.parameters())
    assert all(p.grad is not None for p in task.discriminator.parameters())
    real, fake = seen
    assert not torch.equal(real, _batch().images)
    blocks = real.unflatten(-2, (-1, 8)).unflatten(-1, (-1, 8)).mean((-3, -1))
    original = _batch().images.unflatten(-2, (-1, 8)).unflatten(-1, (-1, 8)).mean((-3, -1))
    torch.testing.assert_close(blocks, original)        # a low-pass keeps every block's mean
    assert not fake.requires_grad


def test_adversary_is_used_from_its_start_and_is_weighted_at_the_decoder():
    task = _task(adversary=Adversary(num_layers=1, channels=4, start=6))
    assert "adversarial" not in task.loss("autoencoder", _batch(), _draws(step=5), 5).values
    loss = task.loss("autoencoder", _batch(), _draws(step=6), 6)
    factor = loss.values["adversarial_factor"]
    torch.testing.assert_close(loss.total, loss.values["l1"] + 0.5 * factor * loss.values["adversarial"])
    assert task.players_at(5) == ("autoencoder",)
    assert task.players_at(7) == ("discriminator",)


def test_appended_scaled_pair_adds_its_own_weighted_reconstruction():
    plain = _task().loss("autoencoder", _batch(), _draws(), 0).total
    task = _task()
    task.methods = {"scale_equivariance": ScaleEquivariance(form="append", scales=(0.5,), alpha=1e-9).build(SHAPES, None)}
    torch.testing.assert_close(task.loss("autoencoder", _batch(), _draws(), 0).total, plain)
    task.methods = {"scale_equivariance": ScaleEquivariance(form="append", scales=(0.5,), alpha=1.0).build(SHAPES, None)}
    assert task.loss("autoencoder", _batch(), _draws(), 0).total > plain


def test_flips_mirror_about_half_of_the_images_and_follow_the_sample():
    task = _task(flip=True)
    images = torch.arange(32.0).expand(64, 3, 32, 32)
    seen = []
    task.autoencoder.encode = lambda x: seen.append(x) or SECTION.build().encode(x)
    whole = streams(0, 0, "autoencoder", batch=64)
    task.loss("autoencoder", ImageBatch(images, None, ("",) * 64), whole, 0)
    task.loss("autoencoder", ImageBatch(images[16:32], None, ("",) * 16), whole.at(16, 32), 0)
    mirrored = seen[0][:, 0, 0, 0] == 31
    assert 16 < mirrored.sum() < 48
    assert torch.equal(seen[0][mirrored], images[mirrored].flip(-1))
    assert torch.equal(seen[1], seen[0][16:32])


def test_a_regularizer_can_set_the_adaptive_weight_of_its_penalty():
    class Roughness(Regularizer):
        weight = 0.1
        adaptive_weight = AdaptiveWeight("encoder", cap=2.0)

        def penalty(self, encoding, draw):
            return 1e-6 * encoding.latents.diff().abs().mean()

    task = _task()
    task.methods = {"roughness": Roughness()}
    loss = task.loss("autoencoder", _batch(), _draws(), 0)
    assert loss.values["roughness_factor"] == 2.0
    torch.testing.assert_close(loss.total, loss.values["l1"] + 0.1 * 2.0 * loss.values["roughness"])


def test_with_a_frozen_decoder_the_adversarial_term_is_balanced_at_the_encoder():
    """The ratio of gradient norms at the last trained weight, restated with autograd."""
    task = _task(adversary=Adversary(num_layers=1, channels=4, start=0))
    train_only(task.autoencoder, set(task.autoencoder.part("encoder")))
    assert last_trained(task.autoencoder, "decoder") is task.autoencoder.encoder_last_layer
    batch, draws = _batch(), _draws()
    loss = task.loss("autoencoder", batch, draws, 0)
    posterior = task.autoencoder.encode(batch.images)
    decoded = task.autoencoder.decode(posterior.sample(_draws().batch("posterior", posterior.mean.shape)))
    terms = ((decoded - batch.images).abs().mean(), -task.discriminator(decoded).mean())
    weight = task.autoencoder.encoder_last_layer
    wanted, found = (torch.autograd.grad(term, weight, retain_graph=True)[0].norm() for term in terms)
    torch.testing.assert_close(loss.values["adversarial_factor"], wanted / found, rtol=1e-4, atol=0)
    loss.total.backward()
    assert all((p.grad is None) == name.startswith(("decoder.", "post_")) for name, p in task.autoencoder.named_parameters())


def test_with_a_frozen_encoder_no_gradient_reaches_it():
    task = _task("dsm", adversary=Adversary(num_layers=1, channels=4, start=0))
    train_only(task.autoencoder, set(task.autoencoder.part("decoder")))
    for step in range(4):
        task.loss("autoencoder", _batch(), _draws(step=step), step).total.backward()
    grads = {name: p.grad is not None for name, p in task.autoencoder.named_parameters()}
    assert set(grads.values()) == {True, False}
    assert all(has == name.startswith(("decoder.", "post_")) for name, has in grads.items())


@pytest.mark.parametrize("names", [("dsm", "scale_equivariance"), ("kl",)])
def test_gradients_of_a_step_with_a_discriminator_are_those_of_the_released_formula(names):
    """All gradients of the autoencoder, restated without a cut: two extra backward passes, then that of the whole sum."""
    task = _task(*names, adversary=Adversary(num_layers=1, channels=4, start=0), perceptual=(Distance(), 0.5))
    if "dsm" in names:
        task.methods["scale_equivariance"] = ScaleEquivariance(form="append", scales=(0.5,)).build(SHAPES, None)
    task.autoencoder.double(), task.discriminator.double().requires_grad_(False)
    batch = _batch()
    images = batch.images.double()
    loss = task.loss("autoencoder", ImageBatch(images, None, batch.ids), _draws(), 0)
    weights = list(task.autoencoder.parameters())
    found = torch.autograd.grad(loss.total, weights)

    passed = task.passed(images, _draws())
    both = list(zip(passed.pairs, passed.decodings, strict=True))
    assert len(both) == len(names)
    l1 = sum(pair.weight * (x.float() - pair.images.float()).abs().mean() for pair, x in both)      # compared in float32
    lpips = sum(pair.weight * (x - pair.images).square().mean() for pair, x in both)
    adversarial = -sum(pair.weight * task.discriminator(x).mean() for pair, x in both)
    last = task.autoencoder.decoder_last_layer
    pull, push = (torch.autograd.grad(value, last, retain_graph=True)[0].norm() for value in (l1 + 0.5 * lpips, adversarial))
    total = l1 + 0.5 * lpips + 0.5 * pull / push * adversarial
    if "kl" in names:
        total = total + 1e-6 * task.methods["kl"].penalty(passed.encoding, None)
    torch.testing.assert_close(loss.values["adversarial_factor"].double(), pull / push, rtol=1e-6, atol=0)
    for one, wanted in zip(found, torch.autograd.grad(total, weights), strict=True):
        torch.testing.assert_close(one, wanted, rtol=2e-6, atol=1e-9)


def test_the_ramp_scales_the_adversarial_term():
    adversary = Adversary(num_layers=1, channels=4, start=0, alone=2, ramp=4, updates="simultaneous")
    task = _task(adversary=adversary)
    assert "adversarial" not in task.loss("autoencoder", _batch(), _draws(), 1).values
    loss = task.loss("autoencoder", _batch(), _draws(), 2)
    expected = loss.values["l1"] + 0.5 / 4 * loss.values["adversarial_factor"] * loss.values["adversarial"]
    torch.testing.assert_close(loss.total.detach(), expected)
