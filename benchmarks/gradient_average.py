"""How much of averaging gradients over two ranks is hidden behind the backward pass.

Two gloo processes of one thread each take the same step of a small SiT: with gradients averaged during the backward pass, after
it, and not at all. Medians of the slower rank. On a CPU, sums and copies of gradients need the cores that compute; GPUs have
links of their own, so that more can be hidden.
"""

import json
import multiprocessing
import os
import socket
import tempfile
from pathlib import Path

import torch

from benchmarks import Row, timings
from smtool.networks.sit import SiT
from smtool.training.distributed import average_gradients, joined
from smtool.training.gradient_average import GradientAverage

WORLD, BATCH, REPEATS = 2, 4, 15
SMALL = SiT(size="custom", depth=4, width=384, heads=6, patch=2)
LATENT = (4, 16, 16)
DURING, AFTER, NONE = "during", "after", "none"


def run() -> list[Row]:
    times = _on_two_ranks()
    slower = {name: sorted(map(max, *(rank[name] for rank in times))) for name in (DURING, AFTER, NONE)}
    during, after, none = slower.values()
    middle = REPEATS // 2
    hidden = (after[middle] - during[middle]) / (after[middle] - none[middle])
    return [
        Row(
            f"step of two ranks ({100 * hidden:.0f} % of averaging hidden)", during[middle], "ms", after[middle],
            "averaged after the backward pass", best_ratio=after[0] / during[0],
        ),
        Row("step of two ranks", during[middle], "ms", none[middle], "not averaged", best_ratio=none[0] / during[0]),
    ]  # fmt: skip


def _on_two_ranks() -> list[dict[str, list[float]]]:
    """Milliseconds of every step, by candidate, of each rank."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        files = [Path(folder) / f"{rank}.json" for rank in range(WORLD)]
        spawn = multiprocessing.get_context("spawn")
        processes = [spawn.Process(target=_measure, args=(rank, port, file)) for rank, file in enumerate(files)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [json.loads(file.read_text()) for file in files]


def _measure(rank: int, port: int, file: Path) -> None:
    """One rank. The order of candidates is the same on both."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(WORLD), "LOCAL_RANK": str(rank), **address})
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    with joined("cpu"):
        network = SMALL.build(LATENT, 10)
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        x, time, labels = torch.randn(BATCH, *LATENT), torch.rand(BATCH), torch.arange(BATCH)
        average = GradientAverage(parameters)

        def backward() -> None:
            network.zero_grad(set_to_none=True)
            network(x, time, labels).output.square().mean().backward()

        def during() -> None:
            with average.overlapped():
                backward()

        def after() -> None:
            backward()
            average_gradients(parameters)

        found = timings({DURING: during, AFTER: after, NONE: backward}, repeats=REPEATS)
        average.close()
        file.write_text(json.dumps(found))
