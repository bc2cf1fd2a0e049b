import pytest
import torch
from torch.distributions import Normal, kl_divergence

from smtool.networks.posterior import Posterior
from smtool.regularizers import KL, Encoding, Shapes

SHAPES = Shapes((3, 3, 32, 40), (3, 2, 4, 5))


def _encoding(rng) -> Encoding:
    mean, logvar = (torch.from_numpy(rng.standard_normal((3, 2, 4, 5))) for _ in range(2))
    posterior = Posterior(mean.float(), logvar.float())
    return Encoding(torch.zeros(3, 3, 32, 40), posterior, posterior.mode())


@pytest.mark.parametrize(("normalization", "divisor"), [("sum", 1), ("mean", 2 * 4 * 5), ("pixels", 3 * 32 * 40)])
def test_divergence_equals_torch_distributions(rng, normalization, divisor):
    encoding = _encoding(rng)
    posterior = encoding.posterior
    each = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0))
    found = KL(normalization=normalization).build(SHAPES, None).penalty(encoding, None)
    torch.testing.assert_close(found, each.sum((1, 2, 3)).mean() / divisor)


def test_a_standard_normal_posterior_has_penalty_zero():
    posterior = Posterior(torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8))
    assert KL().build(SHAPES, None).penalty(Encoding(torch.zeros(2, 3, 64, 64), posterior, posterior.mode()), None) == 0


def test_ldm_units_are_196608_times_weaker_at_256_px():
    posterior = Posterior(torch.ones(1, 4, 32, 32), torch.zeros(1, 4, 32, 32))
    encoding = Encoding(torch.zeros(1, 3, 256, 256), posterior, posterior.mode())
    ours, ldm = (table.build(SHAPES, None).penalty(encoding, None) for table in (KL(), KL(normalization="pixels")))
    assert ours / ldm == 196_608       # released-code.md#autoencoder-loss


def test_a_weight_of_zero_is_refused_because_the_table_can_be_left_out():
    with pytest.raises(ValueError, match="greater than 0"):
        KL(weight=0)
