"""VIV, the irreducible variance of the velocity: how much of a flow's velocity its state leaves open."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

QUERIES = 1024
_ROWS = 256
_CHUNK = 2**22      # numbers of latents held in float64 at a time


@dataclass(frozen=True)
class Ambiguity:
    """value: fraction of the velocity's variance that x_t does not determine; error: standard error over the draws of x_t;
    num_latents: N, on which the value depends."""

    value: float
    error: float
    num_latents: int


def velocity_ambiguity(latents: Tensor, *, draws: Generator, queries: int = QUERIES) -> Ambiguity:
    """VIV (arXiv 2606.03578; released-code.md#predictors), read as the mean over t and x_t of Var[v | x_t] / Var[v].

    latents: (N, ...), normalized, compared as flat vectors of D numbers. Linear path x_t = (1 - t) z + t n with data at t = 0 and
    noise n at t = 1, v = n - z, t uniform, z one of the N latents. The posterior of z given x_t has a closed form: weights
    softmax(-|x_t - (1 - t) z_i|^2 / (2 t^2)). Given x_t, z determines n, and v = (x_t - z) / t, so that
    Var[v | x_t] = Var[z | x_t] / t^2. Var[v] = Var[z] + D. Variances are sums over the D numbers. The mean is over `queries`
    draws of x_t, with t in equal steps over (0, 1), so its error is that of differences between neighbouring steps.
    One latent has VIV 0. The value is smaller for fewer latents, because these are easier to distinguish: compare at equal N
    only. On real latents its additions at each doubling of N do not halve, as a bias of 1 / N would, so no limit is extrapolated.
    Oracle: quadrature for two latents; pi / 4 for many latents of one Gaussian number.
    """
    if queries < 2 or queries % 2:
        raise ValueError(f"VIV needs an even number of queries, 2 or more, but got {queries}")
    if not len(latents) or not bool(latents.isfinite().all()):
        raise ValueError("VIV needs at least one latent, and only finite ones")
    z = latents.flatten(1)
    size = z.shape[1]
    parts = z.split(max(1, _CHUNK // size))
    norms = torch.cat([part.double().square().sum(1) for part in parts])
    mean = sum((part.double().sum(0) for part in parts), start=norms.new_zeros(size)) / len(z)
    total = norms.mean() - mean.square().sum() + size
    start = torch.rand(1, generator=draws, dtype=torch.float64)
    times = ((torch.arange(queries, dtype=torch.float64) + start) / queries).clamp(min=1e-6)
    own = torch.randint(len(z), (queries,), generator=draws)
    noise = torch.randn(queries, size, generator=draws, dtype=torch.float64)
    found = []
    for rows in torch.arange(queries).split(_ROWS):
        t = times[rows, None].to(z.device)
        x = (1 - t) * z[own[rows]].double() + t * noise[rows].to(z.device)
        products = torch.cat([x @ part.double().T for part in parts], 1)                    # (rows, N)
        weights = torch.softmax(((1 - t) * products - 0.5 * (1 - t).square() * norms) / t.square(), 1)
        columns = weights.split([len(part) for part in parts], 1)
        expected = sum((w @ part.double() for w, part in zip(columns, parts, strict=True)), start=torch.zeros_like(x))
        spread = weights @ norms - expected.square().sum(1)
        found.append(spread.clamp(min=0) / t[:, 0].square())
    values = torch.cat(found) / total
    error = (values[0::2] - values[1::2]).square().sum().sqrt().item() / queries
    return Ambiguity(values.mean().item(), error, len(z))
