import pytest
import torch
from torch import nn

from smtool.training.terms import AdaptiveWeight, Term, weighted_sum


def _layers() -> tuple[nn.Linear, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
    return encoder, decoder, decoder(torch.tanh(encoder(torch.randn(8, 4, dtype=torch.float64))))


def test_an_adaptive_weight_equalizes_the_gradient_norms_at_the_decoder():
    encoder, decoder, out = _layers()
    reconstruction, rough = out.square().mean(), 1e3 * out.sin().mean()
    terms = [
        Term("l1", reconstruction, reconstruction=True),
        Term("adversarial", rough, 0.5, AdaptiveWeight("decoder")),
        Term("kl", 1e6 * out.sum(), 1e-6),
    ]
    loss = weighted_sum(terms, {"encoder": encoder.weight, "decoder": decoder.weight})
    pull = torch.autograd.grad(reconstruction, decoder.weight, retain_graph=True)[0].norm()
    push = torch.autograd.grad(rough, decoder.weight, retain_graph=True)[0].norm()
    torch.testing.assert_close(loss.values["adversarial_factor"].double(), pull / push)
    expected = reconstruction + 0.5 * pull / push * rough + out.sum()
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-6, atol=0)


def test_an_encoder_weight_uses_gradients_at_the_encoder():
    encoder, decoder, out = _layers()
    terms = [
        Term("l1", out.square().mean(), 2.0, reconstruction=True),
        Term("va_vae", out.cos().mean(), 0.1, AdaptiveWeight("encoder")),
    ]
    loss = weighted_sum(terms, {"encoder": encoder.weight, "decoder": decoder.weight})
    pull = torch.autograd.grad(2 * terms[0].value, encoder.weight, retain_graph=True)[0].norm()
    push = torch.autograd.grad(terms[1].value, encoder.weight, retain_graph=True)[0].norm()
    torch.testing.assert_close(loss.values["va_vae_factor"].double(), pull / push)


def test_factor_is_bounded_where_the_term_has_no_gradient():
    encoder, decoder, out = _layers()
    terms = [
        Term("l1", out.mean(), reconstruction=True),
        Term("adversarial", 0 * out.mean(), 1.0, AdaptiveWeight("decoder")),
    ]
    loss = weighted_sum(terms, {"encoder": encoder.weight, "decoder": decoder.weight})
    assert loss.values["adversarial_factor"] == 1e4
    assert torch.isfinite(loss.total)


def test_factor_is_a_constant_in_the_gradient():
    """The gradient of the total is that of the terms with a fixed factor."""
    encoder, decoder, out = _layers()
    terms = [
        Term("l1", out.square().mean(), reconstruction=True),
        Term("adversarial", out.sin().mean(), 1.0, AdaptiveWeight("decoder")),
    ]
    loss = weighted_sum(terms, {"encoder": encoder.weight, "decoder": decoder.weight})
    factor = loss.values["adversarial_factor"].double()
    found = torch.autograd.grad(loss.total, encoder.weight, retain_graph=True)[0]
    expected = torch.autograd.grad(terms[0].value + factor * terms[1].value, encoder.weight)[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("layer", ["encoder", "decoder"])
def test_logged_values_are_unweighted_and_detached(layer):
    encoder, decoder, out = _layers()
    terms = [
        Term("l1", out.square().mean(), 3.0, reconstruction=True),
        Term("x", out.sin().mean(), 5.0, AdaptiveWeight(layer)),
    ]
    values = weighted_sum(terms, {"encoder": encoder.weight, "decoder": decoder.weight}).values
    assert torch.equal(values["l1"], terms[0].value.detach())
    assert not any(value.requires_grad for value in values.values())


def test_a_factor_under_fp16_equals_that_of_float32_for_a_mean_over_many_pixels():
    """For 48 images of 256 px, 1 / (48 * 3 * 256 * 256) = 1.06e-7 is 1.8 times fp16's smallest number, and rounds to 2 times."""
    torch.manual_seed(0)
    decoder, x = nn.Linear(8, 8), torch.randn(64, 8)
    factors = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            out = decoder(x)
            pixels = out.float().abs().sum() / (48 * 3 * 256 * 256)
            terms = [
                Term("l1", pixels, reconstruction=True),
                Term("adversarial", out.float().mean(), 1.0, AdaptiveWeight("decoder")),
            ]
            factors.append(weighted_sum(terms, {"decoder": decoder.weight}).values["adversarial_factor"])
    torch.testing.assert_close(factors[1], factors[0], rtol=0.01, atol=0)


def test_a_chosen_numerator_a_floor_and_a_cap():
    encoder, decoder, out = _layers()
    layers = {"encoder": encoder.weight, "decoder": decoder.weight}
    reconstruction = [
        Term("l1", out.square().mean(), 2.0, reconstruction=True),
        Term("lpips", out.exp().mean(), reconstruction=True),
    ]
    value = out.cos().mean()

    def norm(value):
        return torch.autograd.grad(value, encoder.weight, retain_graph=True)[0].norm()

    def factor(**keys):
        term = Term("va_vae", value, 0.1, AdaptiveWeight("encoder", **keys))
        return weighted_sum([*reconstruction, term], layers).values["va_vae_factor"].double()

    torch.testing.assert_close(factor(numerator=("l1",)), 2 * norm(reconstruction[0].value) / norm(value), rtol=1e-6, atol=0)
    whole = norm(2 * reconstruction[0].value + reconstruction[1].value)
    torch.testing.assert_close(factor(), whole / norm(value), rtol=1e-6, atol=0)
    torch.testing.assert_close(factor(floor=1e3), whole / 1e3, rtol=1e-6, atol=0)
    assert factor(cap=1e-3) == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="the numerator of an adaptive weight is 'l2', but the loss has l1, lpips, va_vae"):
        factor(numerator=("l2",))


def test_a_loss_without_adaptive_weights_needs_no_layers():
    _, _, out = _layers()
    loss = weighted_sum([Term("a", out.mean(), 2.0), Term("b", out.square().mean())])
    torch.testing.assert_close(loss.total.double(), 2 * out.mean() + out.square().mean(), rtol=1e-6, atol=1e-7)
    assert set(loss.values) == {"a", "b"}
