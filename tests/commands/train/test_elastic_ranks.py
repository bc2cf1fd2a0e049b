"""A training of four ranks loses one, says so, and goes on with one, two and three: the result is that of one rank."""

import json
import os
import signal
import socket
import time

import pytest
import torch
import warm_process

from smtool.data import open_images

RECIPE = """
steps = {steps}
log_every = 1
evaluate_every = 1000
save_every = 1
[data]
train = "{data}"
image_size = 32
batch = 12
[model]
downsample = 4
latent_channels = 2
channels = [4, 4, 8]
norm_groups = 4
blocks_per_level = 1
[optimizer]
lr = 1e-3
warmup = 0
eps = 1e-2      # with which Adam is smooth: a gradient that is only rounding error moves no weight by the learning rate
[regularizers.dsm]
[ema]
decay = 0.9
[validation]
num_images = 2
grid = 2
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elastic")
    images = open_images("builtin:photos?train=24&val=4", "train", image_size=32, root=folder)
    path = folder / "elastic.toml"
    path.write_text(RECIPE.format(steps=10_000, data=images.folder))
    return path


def _four_ranks(recipe, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    world = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", **address}
    own = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(4)]
    command = ("train-ae", recipe, "--out", folder)
    return [warm_process.start(*command, cwd=folder.parent, env={**os.environ, **world, **one}) for one in own]


@pytest.mark.slow
def test_a_run_that_lost_a_rank_goes_on_with_other_numbers_of_ranks(recipe, tmp_path, state_of):
    folder = tmp_path / "run"
    ranks = _four_ranks(recipe, folder)
    saved = folder / "checkpoints" / "00000001" / "state.json"
    until = time.monotonic() + 120
    while not saved.exists() and time.monotonic() < until:
        assert ranks[0].poll() is None, ranks[0].output()
        time.sleep(0.02)
    ranks[2].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    ended = {rank: ranks[rank].communicate(60) for rank in (0, 1, 3)}
    assert time.monotonic() - killed < 60
    assert [ranks[rank].returncode for rank in (0, 1, 3)] == [8, 8, 8], ended
    for rank, (_, said) in ended.items():
        assert f"Rank {rank} of 4 stops: the connection to another rank is lost" in said
        assert "resumes from the newest checkpoint" in said and "Traceback" not in said
    step = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    for number in (1, 2, 3):
        step += 1
        went_on = warm_process.run(
            "train-ae", recipe, "--out", folder, "--set", f"steps={step}", cwd=tmp_path, ranks=number
        )
        assert went_on.returncode == 0, went_on.stderr
        assert json.loads((folder / "environment.json").read_text())["ranks"] == number
    alone = warm_process.run("train-ae", recipe, "--out", "alone", "--set", f"steps={step}", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    found, expected = state_of(folder), state_of(tmp_path / "alone")
    for name in (name for name in expected if not name.startswith("optimizer/")):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=2e-5, msg=name)
