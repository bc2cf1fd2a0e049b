"""The frequency-split reconstruction loss, restated in numpy, and in the training step."""

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from smtool.data.batches import ImageBatch
from smtool.errors import RecipeError
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing, streams
from smtool.recipe import TrainAE, load
from smtool.regularizers import DSM, EQVAE, ESM, ScaleEquivariance, Shapes
from smtool.tasks.adversary import Adversary
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction
from smtool.tasks.wavelet import Wavelet

SHAPES = Shapes((4, 3, 32, 32), (4, 2, 8, 8))


def _restated(difference: np.ndarray, levels: int, low: float, high: tuple[float, ...]) -> float:
    """Loss of one difference (B, C, H, W) with sides that halve evenly."""
    total = 0.0
    for level in range(levels):
        found: list[list[float]] = [[], [], [], []]
        height, width = difference.shape[-2] // 2, difference.shape[-1] // 2
        coarse = np.empty((*difference.shape[:2], height, width))
        for b, c, i, j in np.ndindex(*coarse.shape):
            block = hadamard(4) @ difference[b, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel() / 2
            coarse[b, c, i, j] = block[0]
            for band, value in zip(found, block, strict=True):
                band.append(abs(value))
        total += high[level] * float(np.mean(found[1:]))
        difference = coarse
    return total + low * float(np.abs(difference).mean())


def test_loss_and_gradient_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 1, 4, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    table = Wavelet(levels=2, low=0.5, high=(2.0, 0.25))
    loss = table.loss(x, y)
    loss.backward()
    assert loss.item() == pytest.approx(_restated((x - y).detach().numpy(), 2, 0.5, (2.0, 0.25)), rel=1e-12)
    wanted, step = np.zeros(x.shape), 1e-6
    for index in np.ndindex(*x.shape):
        sides = []
        for sign in (1, -1):
            moved = (x - y).detach().numpy().copy()
            moved[index] += sign * step
            sides.append(_restated(moved, 2, 0.5, (2.0, 0.25)))
        wanted[index] = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(x.grad.numpy(), wanted, atol=1e-8)


def _images() -> torch.Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _task(wavelet: Wavelet | None, **methods) -> AutoencoderTask:
    adversary = Adversary(num_layers=1, channels=4, start=0)
    with initializing(0, "test"):
        autoencoder = SDVAE(downsample=4, latent_channels=2, norm_groups=4, channels=(4, 4, 8), blocks_per_level=1).build()
        discriminator = adversary.build()
    built = {name: method.build(SHAPES, None) for name, method in methods.items()}
    return AutoencoderTask(
        autoencoder, built, reconstruction=Reconstruction(), perceptual=None, adversary=adversary, discriminator=discriminator,
        flip=False, wavelet=wavelet,
    )


def _loss(task: AutoencoderTask, step: int = 0):
    return task.loss("autoencoder", ImageBatch(_images(), None, tuple("abcd")), streams(0, step, "autoencoder", batch=4), step)


def test_the_term_enters_with_its_weight_and_the_ratio_of_the_adversarial_term_sees_it():
    table = Wavelet(weight=3.0, low=0.0)
    with_it, without = _loss(_task(table)), _loss(_task(None))
    assert with_it.values["l1"] == without.values["l1"] and set(with_it.values) - set(without.values) == {"wavelet"}
    assert with_it.values["adversarial_factor"] != without.values["adversarial_factor"]
    values = with_it.values
    expected = values["l1"] + 3 * values["wavelet"] + 0.5 * values["adversarial_factor"] * values["adversarial"]
    torch.testing.assert_close(with_it.total, expected)


@pytest.mark.parametrize("name", ["dsm", "esm", "scale_equivariance", "eq_vae"])
def test_it_compares_what_a_method_decodes(name):
    """EQ-VAE draws images with odd sides."""
    method = {
        "dsm": DSM(rows_removed=(12,)), "esm": ESM(), "scale_equivariance": ScaleEquivariance(scales=(0.5,)),
        "eq_vae": EQVAE(smallest=0.5),
    }[name]
    task = _task(Wavelet(), **{name: method})
    for step in range(4):
        loss = _loss(task, step)
        loss.total.backward()
        assert torch.isfinite(loss.values["wavelet"])
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in task.autoencoder.parameters())


RECIPE = """
steps = 1
[data]
image_size = 32
batch = 2
[model]
downsample = 4
channels = [4, 4, 4]
norm_groups = 4
[optimizer]
[wavelet]
{wavelet}
{more}
"""


@pytest.mark.parametrize(
    ("wavelet", "more", "message"),
    [
        ("levels = 6", "", "the smallest pair is 32 px, but a Haar transform of 6 levels needs 64; use levels = 5"),
        ("levels = 4", "[regularizers.scale_equivariance]\nscales = [1.0, 0.25]", "the smallest pair is 8 px"),
        ("high = [1.0]", "", "high has 1 numbers, but levels is 2"),
        ("low = 0\nhigh = 0", "", "the term is always 0"),
        ("high = -1.0", "", "wavelet.high"),
    ],
)
def test_values_that_cannot_work_are_refused(tmp_path, wavelet, more, message):
    path = tmp_path / "bad.toml"
    path.write_text(RECIPE.format(wavelet=wavelet, more=more))
    with pytest.raises(RecipeError, match="wavelet") as error:
        load(str(path), TrainAE)
    assert message in str(error.value) + (error.value.hint or "")
