import math

import scipy.fft
import torch
from torch.testing import assert_close

from smtool.commands.train.band_floors import band_floors, floor_values, has_floors
from smtool.diffusion import DDPM, Flow
from smtool.tasks.diffusion import NUM_BANDS

BAND_OF_CELL = [[min(int(NUM_BANDS * math.hypot(u / 4, v / 4)), NUM_BANDS - 1) for v in range(4)] for u in range(4)]


def by_band(values):
    """Plain means of {(u, v): value}."""
    bands = [[value for (u, v), value in values.items() if BAND_OF_CELL[u][v] == band] for band in range(NUM_BANDS)]
    return [sum(band) / len(band) for band in bands]


def test_white_latents_start_at_two_and_end_at_half_pi(rng):
    floors = band_floors(torch.from_numpy(rng.standard_normal((4000, 2, 4, 4))))
    assert_close(floors.start, torch.full((4,), 2.0, dtype=torch.float64), rtol=0.03, atol=0)
    assert_close(floors.floor, torch.full((4,), math.pi / 2, dtype=torch.float64), rtol=0.03, atol=0)


def test_one_channel_equals_a_plain_loop_over_the_cells(rng):
    x = rng.standard_normal((50, 1, 4, 4)) * rng.uniform(0.2, 3.0, (4, 4)) + 0.7
    z = scipy.fft.dctn(x, axes=(-2, -1), norm="ortho")[:, 0]
    cells = [(u, v) for u in range(4) for v in range(4)]
    floors = band_floors(torch.from_numpy(x))
    start = by_band({(u, v): 1 + (z[:, u, v] ** 2).mean() for u, v in cells})
    floor = by_band({(u, v): math.pi / 2 * z[:, u, v].std(ddof=1) for u, v in cells})
    assert_close(floors.start.tolist(), start, rtol=1e-9, atol=0)
    assert_close(floors.floor.tolist(), floor, rtol=1e-9, atol=0)
    assert floors.cells.tolist() == [sum(row.count(band) for row in BAND_OF_CELL) for band in range(NUM_BANDS)]


def test_channels_that_copy_each_other_have_half_the_floor_times_root_two(rng):
    one = torch.from_numpy(rng.standard_normal((200, 1, 4, 4)))
    assert_close(band_floors(one.repeat(1, 2, 1, 1)).floor, band_floors(one).floor / math.sqrt(2))


def test_learnt_is_0_at_the_start_and_1_at_the_floor(rng):
    floors = band_floors(torch.from_numpy(rng.standard_normal((50, 1, 4, 4))))
    assert_close(floors.learnt(floors.start), torch.zeros(4, dtype=torch.float64))
    assert_close(floors.learnt(floors.floor), torch.ones(4, dtype=torch.float64))


def test_the_optimal_prediction_for_a_gaussian_reaches_the_floor(rng):
    """Simulated: the posterior mean of v for coefficients of known power, over uniform times."""
    scale = torch.tensor([[3.0, 1.5, 0.8, 0.5]]).double() * torch.tensor([[1.0], [0.7], [0.5], [0.3]]).double()
    z = torch.from_numpy(rng.standard_normal((200_000, 1, 4, 4))) * scale
    noise, t = torch.from_numpy(rng.standard_normal(z.shape)), torch.from_numpy(rng.uniform(size=(len(z), 1, 1, 1)))
    x_t, power = (1 - t) * z + t * noise, scale**2
    best = (t - (1 - t) * power) / ((1 - t) ** 2 * power + t**2) * x_t
    error = (best - (noise - z)).square().mean((0, 1))
    expected = by_band({(u, v): error[u, v].item() for u in range(4) for v in range(4)})
    latents = torch.from_numpy(scipy.fft.idctn(z[:20_000].numpy(), axes=(-2, -1), norm="ortho"))
    assert_close(band_floors(latents).floor.tolist(), expected, rtol=0.02, atol=0)


def test_floors_are_given_only_for_processes_they_apply_to():
    assert has_floors(Flow())
    others = [{"path": "cosine"}, {"prediction": "x"}, {"time": "logit-normal"}, {"shift": 2.0}, {"input_perturbation": 0.1}]
    assert not any(has_floors(Flow(**change)) for change in others)
    assert not has_floors(DDPM())


def test_the_floor_over_all_bands_is_the_mean_over_all_cells(rng):
    x = torch.from_numpy(rng.standard_normal((60, 1, 4, 4)) * rng.uniform(0.2, 3.0, (4, 4)))
    values = floor_values(x)
    counts = [sum(row.count(band) for row in BAND_OF_CELL) for band in range(NUM_BANDS)]
    expected = sum(count * values[f"floor_band{band}"] for band, count in enumerate(counts, start=1)) / 16
    assert math.isclose(values["floor_diffusion"], expected, rel_tol=1e-12)
