import pytest
import torch
from torch import nn

from smtool.training.terms import AdaptiveWeight, Cut, Term, weighted_sum


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


class _Behind(nn.Module):
    """A frozen network behind the cut; counts its backward passes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.passes = 0

    def forward(self, x):
        value = (x @ self.weight).tanh()
        value.register_hook(self._count)
        return value.square().mean()

    def _count(self, gradient):
        self.passes += 1


def _terms_of(images, latents, cut, networks, numerator):
    """Terms of two pairs as an autoencoder has them: behind the cut, and one ("velocity") that does not pass it."""
    seen = images if cut is None else cut.copies
    lpips, judge = networks
    return [
        Term("velocity", sum(x.exp().mean() for x in images), 0.3, reconstruction=True),
        Term("l1", sum(x.abs().mean() for x in seen), 2.0, reconstruction=True, cut=cut),
        Term("lpips", sum(lpips(x) for x in seen), 0.5, reconstruction=True, cut=cut),
        Term("adversarial", -sum(judge(x) for x in seen), 0.7, AdaptiveWeight("decoder", offset=1e-6), cut=cut),
        Term("va_vae", latents.cos().mean(), 0.1, AdaptiveWeight("encoder", numerator, offset=1e-4, cap=1e8)),
        Term("style", seen[0].mean(), 0.2, cut=cut),
        Term("kl", latents.square().mean(), 1e-3),
    ]


@pytest.mark.parametrize("numerator", [(), ("l1",), ("lpips", "velocity")])
def test_terms_behind_a_cut_give_the_gradients_of_the_formula_in_one_backward_pass_each(numerator):
    """In float64, against ratios and total written out with autograd and no cut. Tolerance: the total is a sum in float32."""
    encoder, decoder, images = _layers()
    latents = torch.tanh(encoder(torch.ones(8, 4, dtype=torch.float64)))
    images = [images, decoder(0.5 * latents)]
    weights = [encoder.weight, encoder.bias, decoder.weight, decoder.bias]
    layers = {"encoder": encoder.weight, "decoder": decoder.weight}

    named = {term.name: term for term in _terms_of(images, latents, None, [_Behind(1), _Behind(2)], numerator)}

    def norm(value, layer):
        return torch.autograd.grad(value, layer, retain_graph=True)[0].norm()

    def over(names):
        return sum(named[name].weight * named[name].value for name in names)

    whole = ("velocity", "l1", "lpips")
    of_judge = norm(over(whole), decoder.weight) / (norm(named["adversarial"].value, decoder.weight) + 1e-6)
    of_latents = norm(over(numerator or whole), encoder.weight) / (norm(named["va_vae"].value, encoder.weight) + 1e-4)
    total = over([*whole, "style", "kl"]) + of_judge * over(["adversarial"]) + of_latents * over(["va_vae"])
    expected = torch.autograd.grad(total, weights, retain_graph=True)

    networks = [_Behind(1), _Behind(2)]
    loss = weighted_sum(_terms_of(images, latents, Cut.of(images), networks, numerator), layers)
    torch.testing.assert_close(loss.total.double(), total, rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.values["adversarial_factor"], of_judge, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.values["va_vae_factor"], of_latents, rtol=1e-12, atol=0)
    for found, wanted in zip(torch.autograd.grad(loss.total, weights), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-12)
    assert [network.passes for network in networks] == [2, 2]      # one for each pair


def test_a_scaled_total_scales_the_gradients_behind_the_cut():
    """As for loss scaling and for micro-batches."""
    encoder, _, out = _layers()
    cut = Cut.of([out])
    terms = [Term("l1", cut.copies[0].abs().mean(), reconstruction=True, cut=cut), Term("kl", out.square().mean())]
    expected = torch.autograd.grad(1024 * (out.abs().mean() + out.square().mean()) / 4, encoder.weight, retain_graph=True)[0]
    (found,) = torch.autograd.grad(1024 * weighted_sum(terms).total / 4, encoder.weight)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
