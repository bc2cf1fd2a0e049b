"""DiffAugment restated in numpy; its decisions; what the discriminator of a task sees."""

import numpy as np
import pytest
import torch
from torch import nn

from smtool.data.batches import ImageBatch
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import streams
from smtool.tasks.adversary import Adversary, DinoAdversary
from smtool.tasks.augment import Draws, augmented, draw_augmentation
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction


def pictures(count: int = 3, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def restated(image: np.ndarray, u: np.ndarray, *, translated: bool, recoloured: bool) -> np.ndarray:
    """Of one image (C, H, W), by loops."""
    _, height, width = image.shape
    out = image.copy()
    if translated:
        down, right = (int(np.floor(value * (2 * round(side / 8) + 1))) - round(side / 8)
                       for value, side in ((u[3], height), (u[4], width)))
        out = np.zeros_like(image)
        for row in range(height):
            for column in range(width):
                if 0 <= row + down < height and 0 <= column + right < width:
                    out[:, row, column] = image[:, row + down, column + right]
    if recoloured:
        out = out + (u[0] - 0.5)
        out = (out - out.mean(0)) * (2 * u[1]) + out.mean(0)
        out = (out - out.mean()) * (u[2] + 0.5) + out.mean()
    return out


@pytest.mark.parametrize("translated", [True, False])
@pytest.mark.parametrize("recoloured", [True, False])
def test_images_and_gradients_are_the_published_formula(translated, recoloured):
    amounts = torch.rand(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = pictures().requires_grad_()
    found = augmented(x, Draws(translated, recoloured, amounts))
    expected = [restated(image, u, translated=translated, recoloured=recoloured)
                for image, u in zip(x.detach().numpy(), amounts.numpy(), strict=True)]
    np.testing.assert_allclose(found.detach().numpy(), np.stack(expected), rtol=1e-12, atol=1e-12)
    small = pictures(2, 4, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: augmented(y, Draws(translated, recoloured, amounts[:2])), (small,))


def test_shifts_are_whole_pixels_of_at_most_an_eighth_and_all_occur():
    ramp = torch.arange(1.0, 17).view(1, 1, 16, 1).expand(500, 1, 16, 16)
    amounts = torch.rand(500, 5, generator=torch.Generator().manual_seed(0))
    found = augmented(ramp, Draws(True, False, amounts)).amax((1, 3))[:, 8]      # at a middle row: never outside
    assert set((found - 9).tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_decisions_are_for_the_whole_batch_and_amounts_follow_the_image():
    whole = streams(0, 3, "autoencoder", batch=6)
    parts = [draw_augmentation(part, 0.5, "target 0") for part in (whole.at(0, 2), whole.at(2, 6))]
    both = draw_augmentation(whole, 0.5, "target 0")
    assert all((part.translated, part.recoloured) == (both.translated, both.recoloured) for part in parts)
    assert torch.equal(torch.cat([part.amounts for part in parts]), both.amounts)
    drawn = [draw_augmentation(streams(0, step, "autoencoder", batch=1), 0.3, "x") for step in range(400)]
    shares = [np.mean([draw.translated for draw in drawn]), np.mean([draw.recoloured for draw in drawn])]
    assert shares == pytest.approx([0.3, 0.3], abs=0.1)
    always = draw_augmentation(whole, 1.0, "x")
    assert always.translated and always.recoloured


class Watching(nn.Module):
    """A discriminator that keeps what it sees; its logits are the images."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        self.seen.append(x.detach())
        return self.factor * x


def task_with(adversary: Adversary | DinoAdversary) -> AutoencoderTask:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SDVAE(downsample=4, latent_channels=2, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1).build()
    return AutoencoderTask(network, {}, reconstruction=Reconstruction(), perceptual=None, adversary=adversary,
                           discriminator=Watching(), flip=False)


@pytest.mark.parametrize("table", [Adversary(start=0), Adversary(start=0, augment=1.0, rounded=True), DinoAdversary(start=0)])
def test_the_discriminator_of_any_kind_sees_augmented_images_if_the_recipe_says_so(table):
    task = task_with(table)
    images = pictures().float()
    batch = ImageBatch(images, None, ("a", "b", "c"))
    draws = streams(0, 0, "discriminator", batch=3)
    task.loss("discriminator", batch, draws, 0)
    target, decoding = task.discriminator.seen
    with torch.no_grad():
        posterior = task.autoencoder.encode(images)
        plain = task.autoencoder.decode(posterior.sample(draws.batch("posterior", posterior.mean.shape)))
    if table.rounded:
        plain = ((plain.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    if table.augment:
        target_expected, expected = (augmented(x, draw_augmentation(draws, 1.0, f"{name} 0"))
                                     for x, name in ((images, "target"), (plain, "decoding")))
    else:
        target_expected, expected = images, plain
    torch.testing.assert_close(target, target_expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(decoding, expected, atol=1e-2 if table.rounded else 1e-5, rtol=1e-4)


def test_the_autoencoder_learns_through_the_augmentation():
    task = task_with(Adversary(start=0, augment=1.0))
    batch = ImageBatch(pictures().float(), None, ("a", "b", "c"))
    loss = task.loss("autoencoder", batch, streams(0, 0, "autoencoder", batch=3), 0)
    loss.total.backward()
    assert {"l1", "adversarial", "adversarial_factor"} <= set(loss.values)
    assert task.autoencoder.decoder_last_layer.grad.abs().sum() > 0


def test_the_adaptive_weight_of_raes_discriminator_is_the_ratio_of_the_facts():
    weight = DinoAdversary().adaptive_weight
    assert (weight.layer, weight.offset, weight.cap) == ("decoder", 1e-6, 1e4)
    assert (DinoAdversary().weight, DinoAdversary().augment, DinoAdversary().rounded) == (0.75, 1.0, True)
    with pytest.raises(ValueError, match="augment"):
        Adversary(augment=1.5)
