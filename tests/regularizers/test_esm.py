import pytest
import torch

from smtool.networks.posterior import Posterior
from smtool.regularizers import ESM, Encoding, Shapes
from smtool.spectrum import REFERENCE, esm_loss

SHAPES = Shapes((4, 3, 64, 64), (4, 3, 16, 16))


def _encoding() -> Encoding:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(4, 3, 16, 16, generator=generator).requires_grad_()
    posterior = Posterior(mean, torch.full_like(mean, -2.0))
    noise = torch.randn(mean.shape, generator=generator)
    return Encoding(torch.randn(4, 3, 64, 64, generator=generator), posterior, posterior.sample(noise))


def test_default_penalty_is_the_released_loss_on_sampled_latents_at_weight_one_hundredth():
    encoding, method = _encoding(), ESM().build(SHAPES, None)
    assert method.weight == 0.01
    assert torch.equal(method.penalty(encoding, None), esm_loss(encoding.images, encoding.latents, 1.0, REFERENCE.loss))


def test_posterior_mean_is_matched_when_asked_for():
    encoding = _encoding()
    found = ESM(posterior="mean", delta=0.5).build(SHAPES, None).penalty(encoding, None)
    assert torch.equal(found, esm_loss(encoding.images, encoding.posterior.mean, 0.5, REFERENCE.loss))


@pytest.mark.parametrize(
    "change", [{"bins": 8}, {"downsample": "antialias"}, {"downsample": "dct-crop"}, {"log": "none"}, {"gain": "match"}]
)
def test_every_key_changes_the_penalty(change):
    encoding = _encoding()
    plain, changed = (table.build(SHAPES, None).penalty(encoding, None) for table in (ESM(), ESM(**change)))
    assert not torch.isclose(plain, changed)


def test_matched_gain_does_not_depend_on_the_scale_of_the_latents():
    encoding = _encoding()
    quieter = Encoding(encoding.images, encoding.posterior, 0.03 * encoding.latents)
    matched, raw = ESM(gain="match").build(SHAPES, None), ESM().build(SHAPES, None)
    torch.testing.assert_close(matched.penalty(quieter, None), matched.penalty(encoding, None), rtol=1e-3, atol=0)
    assert not torch.isclose(raw.penalty(quieter, None), raw.penalty(encoding, None), rtol=0.05)


def test_gradient_reaches_the_encoder():
    encoding = _encoding()
    ESM().build(SHAPES, None).penalty(encoding, None).backward()
    assert encoding.posterior.mean.grad.abs().sum() > 0


def test_descending_the_penalty_flattens_latents_to_the_target():
    """Gradient descent on the penalty alone changes the spectrum of a white latent to the flattened image spectrum."""
    encoding = _encoding()
    z = encoding.latents.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    first = esm_loss(encoding.images, z, 0.0, REFERENCE.loss).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = esm_loss(encoding.images, z, 0.0, REFERENCE.loss)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first


def test_no_size_is_a_problem():
    assert list(ESM().problems(Shapes((2, 3, 8, 8), (2, 4, 1, 1)))) == []
