"""The loss of a diffusion decoder, restated in float64, with methods, discriminator and slices of the batch."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smtool.data.batches import ImageBatch
from smtool.errors import RecipeError
from smtool.networks.epsilon_vae import EpsilonVAE
from smtool.randomness import initializing, streams
from smtool.recipe import TrainAE, load
from smtool.regularizers import DSM, EQVAE, ESM, KL, LatentMasking, ScaleEquivariance, Shapes
from smtool.tasks.adversary import Adversary
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction
from smtool.tasks.wavelet import Wavelet

TABLE = EpsilonVAE(downsample=4, latent_channels=2, norm_groups=4, channels=(4, 4, 8), blocks_per_level=1, denoiser_blocks=1)
SHAPES = Shapes((4, 3, 32, 32), (4, 2, 8, 8))
METHODS = {
    "kl": KL(), "esm": ESM(), "dsm": DSM(), "scale_equivariance": ScaleEquivariance(form="append", scales=(1.0, 0.5)),
    "eq_vae": EQVAE(prior=0.0, smallest=0.5), "latent_masking": LatentMasking(),
}


class Distance(nn.Module):
    """Substitute for LPIPS: (x, y) -> (B,)."""

    def forward(self, x, y):
        return (x - y).square().flatten(1).mean(1)


def _task(*names: str, adversary: Adversary | None = None, time: str = "uniform", **changes) -> AutoencoderTask:
    with initializing(0, "test"):
        autoencoder = TABLE.build()
        discriminator = adversary.build() if adversary else None
        methods = {name: METHODS[name].build(SHAPES, None) for name in names}
    keys = {"reconstruction": Reconstruction(loss="velocity", weight=2.0, time=time), "perceptual": None} | changes
    return AutoencoderTask(autoencoder, methods, adversary=adversary, discriminator=discriminator, flip=False, **keys)


def _images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1).to(dtype)


def _draws(player: str = "autoencoder", step: int = 0):
    return streams(0, step, player, batch=4)


def _loss(task: AutoencoderTask, step: int = 0, dtype: torch.dtype = torch.float32):
    return task.loss("autoencoder", ImageBatch(_images(dtype), None, tuple("abcd")), _draws(step=step), step)


@pytest.mark.parametrize("time", ["uniform", "logit-normal"])
def test_losses_and_gradients_are_those_of_the_formulas(time):
    """Image by image in float64: x_t = (1 - t) x + t e, mean (v - (e - x))^2, and LPIPS on x_t - t v."""
    task = _task(perceptual=(Distance(), 0.5), time=time)
    task.autoencoder.double()
    loss = _loss(task, dtype=torch.float64)
    loss.total.backward()
    found = {name: parameter.grad.clone() for name, parameter in task.autoencoder.named_parameters()}
    task.autoencoder.zero_grad()
    draws, images = _draws(), _images(torch.float64)
    noise, u = draws.batch("decoder-noise-0", images.shape).double(), draws.uniform("decoder-time-0", (4,))
    posterior = draws.batch("posterior", (4, 2, 8, 8)).double()
    velocity, distance = 0.0, 0.0
    for x, e, uniform, drawn in zip(images, noise, u, posterior, strict=True):
        t = uniform.double()
        if time == "logit-normal":
            t = (1 / (1 + torch.exp(-torch.distributions.Normal(0.0, 1.0).icdf(t)))).float().double()
        encoded = task.autoencoder.encode(x[None])
        z = encoded.mean + torch.exp(encoded.logvar / 2) * drawn
        x_t = (1 - t) * x + t * e
        v = task.autoencoder.velocity(x_t[None], t.view(1).float(), z)[0]
        velocity = velocity + (v - (e - x)).square().mean() / 4
        distance = distance + ((x_t - t * v) - x).square().mean() / 4
    assert_close(loss.values["velocity"], velocity.detach(), rtol=1e-6, atol=0)
    assert_close(loss.values["lpips"], distance.detach(), rtol=1e-6, atol=0)
    (2.0 * velocity + 0.5 * distance).backward()
    for name, parameter in task.autoencoder.named_parameters():
        assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-7, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("names", [*((name,) for name in METHODS), tuple(METHODS)], ids="+".join)
def test_methods_compose(names):
    task = _task(*names, adversary=Adversary(num_layers=1, channels=4, start=0), wavelet=Wavelet())
    for step in range(2):
        loss = _loss(task, step)
        loss.total.backward()
        assert torch.isfinite(loss.total) and {"velocity", "wavelet", "adversarial"} <= set(loss.values)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in task.autoencoder.parameters())


def test_dsm_denoises_the_low_passed_image_from_the_low_passed_latent():
    task = _task("dsm")
    task.methods["dsm"].rows_removed = (12,)
    seen = []
    task.autoencoder.decoder.register_forward_pre_hook(lambda _, given: seen.append(given))
    _loss(task)
    x_t, *_ = seen[0]
    draws = _draws()
    noise, u = draws.batch("decoder-noise-0", x_t.shape), draws.uniform("decoder-time-0", (4,)).view(-1, 1, 1, 1)
    clean = (x_t - u * noise) / (1 - u)

    def means(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-2, (-1, 8)).unflatten(-1, (-1, 8)).mean((-3, -1))

    assert_close(means(clean), means(_images()), rtol=0, atol=1e-4)
    assert clean.diff(dim=-1).square().sum() < 0.2 * _images().diff(dim=-1).square().sum()


def test_the_discriminator_sees_estimates_at_its_own_times_and_no_graph_reaches_the_autoencoder():
    task = _task(adversary=Adversary(num_layers=1, channels=4, start=0))
    seen = []
    task.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for player in ("autoencoder", "discriminator"):
        loss = task.loss(player, ImageBatch(_images(), None, tuple("abcd")), _draws(player), 0)
    loss.total.backward()
    assert all(p.grad is None for p in task.autoencoder.parameters())
    in_generator, real, fake = seen
    assert torch.equal(real, _images()) and not torch.equal(in_generator, fake)


def test_slices_of_the_batch_have_the_loss_of_the_whole():
    task = _task("kl")
    halves = [(ImageBatch(_images()[a : a + 2], None, tuple("ab")), _draws().at(a, a + 2)) for a in (0, 2)]
    parts = [task.loss("autoencoder", batch, draws, 0).total for batch, draws in halves]
    assert_close(torch.stack(parts).mean(), _loss(task).total, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_training_lowers_the_loss_and_the_decoding_approaches_the_image():
    task = _task()
    optimizer = torch.optim.Adam(task.autoencoder.parameters(), lr=3e-3)
    flat = _images().mean((-2, -1), keepdim=True).expand(-1, -1, 16, 16) + torch.linspace(-0.5, 0.5, 16)
    errors = []
    for step in range(60):
        optimizer.zero_grad()
        task.loss("autoencoder", ImageBatch(flat, None, tuple("abcd")), _draws(step=step), step).total.backward()
        optimizer.step()
        if step in (0, 59):
            with torch.no_grad():
                decoded = task.autoencoder.decode(task.autoencoder.encode(flat).mode())
            errors.append((decoded - flat).square().mean().item())
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("epsilon-vae", ["reconstruction.loss=l1"], 'reconstruction.loss: must be "velocity"'),
        ("sd-vae", ["reconstruction.loss=velocity"], "reconstruction.loss: needs a decoder that denoises"),
        ("sd-vae", ["reconstruction.time=logit-normal"], "reconstruction.time: has an effect only"),
        ("epsilon-vae", ["regularizers.latent_noise={kind='nextstep',level=0.5}"], "needs latents that are normalized"),
    ],
)
def test_a_loss_that_does_not_fit_the_decoder_is_refused(recipe, changes, message):
    with pytest.raises(RecipeError) as error:
        load(recipe, TrainAE, changes)
    assert message in str(error.value)


def test_the_velocity_is_the_default_loss_of_the_model():
    assert load("epsilon-vae", TrainAE, ["reconstruction="]).tables.reconstruction == Reconstruction(loss="velocity")
